-- Edits, connections and the relay in every window of $length_s seconds between $from_s and
-- $to_s, in one phase ($phase) or, if that is null, in the run: for objectives that say `for`.
-- Counts are sums over the window, gauges its mean, `peak` its largest, growth last minus first.
WITH starts AS (
    SELECT unnest(generate_series(
        0, greatest(floor($to_s - $from_s)::INTEGER - $length_s::INTEGER, 0)))::INTEGER AS start
),
edit_bins AS (
    SELECT floor(at_s - $from_s)::INTEGER AS bin,
        count(*) FILTER (WHERE outcome <> 'missed') AS tried,
        count(*) FILTER (WHERE outcome IN ('failed', 'unacknowledged')) AS failed
    FROM edit_outcomes WHERE $phase IS NULL OR phase = $phase GROUP BY bin
),
done_bins AS (
    SELECT floor(acknowledged_s - $from_s)::INTEGER AS bin, count(*) AS completed
    FROM edit_outcomes
    WHERE outcome = 'acknowledged' AND ($phase IS NULL OR phase = $phase) GROUP BY bin
),
end_bins AS (
    SELECT floor(at_s - $from_s)::INTEGER AS bin,
        count(*) FILTER (WHERE event = 'dropped') AS dropped,
        count(*) FILTER (WHERE event = 'failed') AS connect_failed
    FROM connections WHERE event IN ('dropped', 'failed') GROUP BY bin
),
fleet_bins AS (
    SELECT floor(second + 0.5 - $from_s)::INTEGER AS bin, connections_open, connections_healthy,
        100 * least(connections_healthy / nullif(connections_target, 0), 1) AS score
    FROM fleet_seconds
),
relay_bins AS (
    SELECT floor(at_s - $from_s)::INTEGER AS bin, at_s, error, memory_rss_mb FROM relay
),
edits_in AS (
    SELECT start, sum(tried)::BIGINT AS tried, sum(failed)::BIGINT AS failed
    FROM starts JOIN edit_bins ON bin >= start AND bin < start + $length_s GROUP BY start
),
done_in AS (
    SELECT start, sum(completed)::BIGINT AS completed
    FROM starts JOIN done_bins ON bin >= start AND bin < start + $length_s GROUP BY start
),
ended_in AS (
    SELECT start, sum(dropped)::BIGINT AS dropped, sum(connect_failed)::BIGINT AS connect_failed
    FROM starts JOIN end_bins ON bin >= start AND bin < start + $length_s GROUP BY start
),
fleet_in AS (
    SELECT start, max(connections_open) AS peak, avg(connections_healthy) AS healthy,
        avg(score) AS health_score
    FROM starts JOIN fleet_bins ON bin >= start AND bin < start + $length_s GROUP BY start
),
relay_in AS (
    SELECT start,
        count(*) FILTER (WHERE error IS NOT NULL) AS polls_failed,
        arg_max(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL) AS memory_end_mb,
        arg_max(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL)
            - arg_min(memory_rss_mb, at_s) FILTER (WHERE memory_rss_mb IS NOT NULL)
            AS memory_growth_mb
    FROM starts JOIN relay_bins ON bin >= start AND bin < start + $length_s GROUP BY start
)
SELECT
    $from_s + w.start AS from_s, $from_s + w.start + $length_s AS to_s,
    CASE WHEN e.tried > 0 THEN e.failed / e.tried END AS error_rate,
    CASE WHEN e.tried > 0 THEN e.failed END AS failed,
    coalesce(d.completed, 0) AS completed,
    coalesce(d.completed, 0) / $length_s AS per_second,
    coalesce(c.dropped, 0) AS dropped, coalesce(c.connect_failed, 0) AS connect_failed,
    f.peak, f.healthy, f.health_score,
    y.polls_failed, y.memory_end_mb, y.memory_growth_mb
FROM starts w
LEFT JOIN edits_in e USING (start) LEFT JOIN done_in d USING (start)
LEFT JOIN ended_in c USING (start) LEFT JOIN fleet_in f USING (start)
LEFT JOIN relay_in y USING (start)
ORDER BY from_s;
