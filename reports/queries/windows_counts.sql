-- Edits, connections and the relay in every window of $length_s seconds between $from_s and
-- $to_s, in one phase ($phase) or, if that is null, in the run: for objectives that say `for`.
-- Counts are sums over the window, gauges its mean, `peak` its largest, growth last minus first.
WITH starts AS (
    SELECT $from_s + unnest(generate_series(
        0, greatest(floor($to_s - $from_s)::INTEGER - $length_s::INTEGER, 0))) AS from_s
),
windows AS (SELECT from_s, from_s + $length_s AS to_s FROM starts),
edits_in AS (
    SELECT w.from_s,
        count(*) FILTER (WHERE outcome <> 'missed') AS tried,
        count(*) FILTER (WHERE outcome IN ('failed', 'unacknowledged')) AS failed
    FROM windows w JOIN edit_outcomes e ON e.at_s >= w.from_s AND e.at_s < w.to_s
    WHERE $phase IS NULL OR e.phase = $phase
    GROUP BY w.from_s
),
done_in AS (
    SELECT w.from_s, count(*) AS completed
    FROM windows w JOIN edit_outcomes e
        ON e.acknowledged_s >= w.from_s AND e.acknowledged_s < w.to_s
    WHERE outcome = 'acknowledged' AND ($phase IS NULL OR e.phase = $phase)
    GROUP BY w.from_s
),
ended_in AS (
    SELECT w.from_s,
        count(*) FILTER (WHERE event = 'dropped') AS dropped,
        count(*) FILTER (WHERE event = 'failed') AS connect_failed
    FROM windows w JOIN connections c ON c.at_s >= w.from_s AND c.at_s < w.to_s
    WHERE event IN ('dropped', 'failed') GROUP BY w.from_s
),
fleet_in AS (
    SELECT w.from_s, max(connections_open) AS peak, avg(connections_healthy) AS healthy,
        100 * avg(least(connections_healthy / nullif(connections_target, 0), 1)) AS health_score
    FROM windows w JOIN fleet_seconds f ON f.second + 0.5 >= w.from_s AND f.second + 0.5 < w.to_s
    GROUP BY w.from_s
),
relay_in AS (
    SELECT w.from_s,
        count(*) FILTER (WHERE error IS NOT NULL) AS polls_failed,
        arg_max(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL) AS memory_end_mb,
        arg_max(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL)
            - arg_min(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL)
            AS memory_growth_mb
    FROM windows w JOIN relay r ON r.at_s >= w.from_s AND r.at_s < w.to_s GROUP BY w.from_s
)
SELECT
    w.from_s, w.to_s,
    CASE WHEN e.tried > 0 THEN e.failed / e.tried END AS error_rate,
    CASE WHEN e.tried > 0 THEN e.failed END AS failed,
    coalesce(d.completed, 0) AS completed,
    coalesce(d.completed, 0) / $length_s AS per_second,
    coalesce(c.dropped, 0) AS dropped, coalesce(c.connect_failed, 0) AS connect_failed,
    f.peak, f.healthy, f.health_score,
    y.polls_failed, y.memory_end_mb, y.memory_growth_mb
FROM windows w
LEFT JOIN edits_in e USING (from_s) LEFT JOIN done_in d USING (from_s)
LEFT JOIN ended_in c USING (from_s) LEFT JOIN fleet_in f USING (from_s)
LEFT JOIN relay_in y USING (from_s)
ORDER BY w.from_s;
