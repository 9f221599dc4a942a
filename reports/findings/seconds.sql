-- Every second of the run's phases: what was offered and done, what went wrong, the relay, and the
-- fleet. What the plan drops is left out, and `errors` leaves out `connection_dropped`, which `drops` counts.
WITH offered AS (
    SELECT second,
        count(*) AS offered,
        count(*) FILTER (WHERE outcome IN ('acknowledged', 'unacknowledged')) AS made,
        count(*) FILTER (WHERE outcome = 'failed') AS failed,
        count(*) FILTER (WHERE outcome = 'unacknowledged') AS unacknowledged,
        count(*) FILTER (WHERE outcome = 'missed') AS missed
    FROM edit_outcomes GROUP BY second
),
done AS (
    SELECT floor(acknowledged_s)::INTEGER AS second, count(*) AS completed
    FROM edit_outcomes WHERE outcome = 'acknowledged' GROUP BY ALL
),
wrong AS (
    SELECT floor(at_s)::INTEGER AS second, sum(coalesce(weight, 1)) AS errors
    FROM errors WHERE type IS DISTINCT FROM 'connection_dropped' GROUP BY ALL
),
ended AS (
    SELECT floor(at_s)::INTEGER AS second, count(*) AS drops
    FROM connections
    WHERE event = 'dropped' AND cause IS DISTINCT FROM 'dropped_on_purpose' GROUP BY ALL
)
SELECT
    s.second, s.phase,
    coalesce(o.offered, 0) AS offered, coalesce(o.made, 0) AS made,
    coalesce(d.completed, 0) AS completed, coalesce(o.failed, 0) AS failed,
    coalesce(o.unacknowledged, 0) AS unacknowledged, coalesce(o.missed, 0) AS missed,
    coalesce(w.errors, 0)::DOUBLE AS errors, coalesce(e.drops, 0) AS drops,
    f.connections_target, f.connections_open,
    coalesce(r.polls, 0) AS polls, coalesce(r.polls_failed, 0) AS polls_failed,
    r.relay_connections, r.relay_memory_mb, r.relay_cpu_seconds, r.relay_response_ms
FROM run_seconds s
LEFT JOIN offered o USING (second) LEFT JOIN done d USING (second) LEFT JOIN wrong w USING (second)
LEFT JOIN ended e USING (second) LEFT JOIN fleet_seconds f USING (second)
LEFT JOIN relay_seconds r USING (second)
WHERE s.phase IS NOT NULL
ORDER BY s.second;
