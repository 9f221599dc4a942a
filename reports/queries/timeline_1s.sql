-- The run second by second: connections, edits, latencies by the second in which they were meant
-- to begin, errors, the relay, and the workers. Null is no sample, never zero.
WITH offered AS (
    SELECT second,
        count(*) AS edits_offered,
        count(*) FILTER (WHERE outcome IN ('failed', 'unacknowledged')) AS edits_failed,
        count(*) FILTER (WHERE outcome = 'missed') AS edits_missed,
        max(lateness_ms) AS edit_lateness_max_ms
    FROM edit_outcomes GROUP BY second
),
done AS (
    SELECT floor(acknowledged_s)::INTEGER AS second, count(*) AS edits_completed
    FROM edit_outcomes WHERE outcome = 'acknowledged' GROUP BY ALL
),
shown AS (
    SELECT seen_second AS second, sum(weight) AS deliveries
    FROM delivery_latencies WHERE repeat = 1 GROUP BY ALL
),
ack AS (FROM distribution_by_second('acknowledgement_ms')),
seen AS (FROM distribution_by_second('delivery_ms')),
wrong AS (
    SELECT floor(at_s)::INTEGER AS second, sum(coalesce(weight, 1)) AS errors FROM errors GROUP BY ALL
),
ends AS (
    SELECT floor(at_s)::INTEGER AS second,
        count(*) FILTER (WHERE event = 'failed') AS connections_failed,
        count(*) FILTER (WHERE event = 'dropped') AS connections_dropped
    FROM connections GROUP BY ALL
)
SELECT
    s.second, s.phase, r.origin_us + s.second::BIGINT * 1000000 AS at_us,
    f.workers, f.connections_target, f.connections_open, f.connections_synced,
    f.connections_healthy, f.sockets_attempted,
    coalesce(ends.connections_failed, 0) AS connections_failed,
    coalesce(ends.connections_dropped, 0) AS connections_dropped,
    coalesce(offered.edits_offered, 0) AS edits_offered,
    coalesce(done.edits_completed, 0) AS edits_completed,
    coalesce(offered.edits_failed, 0) AS edits_failed,
    coalesce(offered.edits_missed, 0) AS edits_missed,
    f.edits_pending,
    coalesce(shown.deliveries, 0) AS deliveries,
    ack.p50 AS acknowledgement_p50_ms, ack.p95 AS acknowledgement_p95_ms,
    ack.p99 AS acknowledgement_p99_ms, ack.max AS acknowledgement_max_ms,
    seen.p50 AS delivery_p50_ms, seen.p95 AS delivery_p95_ms,
    seen.p99 AS delivery_p99_ms, seen.max AS delivery_max_ms,
    coalesce(wrong.errors, 0) AS errors,
    y.* EXCLUDE (second),
    f.cpu_percent_max, f.agent_memory_mb, f.browser_memory_mb, f.js_heap_mb,
    f.loop_lag_max_ms, f.page_lag_max_ms, offered.edit_lateness_max_ms
FROM run r CROSS JOIN run_seconds s
LEFT JOIN fleet_seconds f USING (second)
LEFT JOIN offered USING (second) LEFT JOIN done USING (second) LEFT JOIN shown USING (second)
LEFT JOIN ack USING (second) LEFT JOIN seen USING (second) LEFT JOIN wrong USING (second)
LEFT JOIN ends USING (second) LEFT JOIN relay_seconds y USING (second)
ORDER BY s.second;
