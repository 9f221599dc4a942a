-- The relay by its own /metrics, in the run and each phase: memory at the start, the end and its
-- largest, connections, polls that failed, restarts (its uptime went back).
WITH polls AS (
    SELECT *, uptime_s < lag(uptime_s) OVER (PARTITION BY uptime_s IS NULL ORDER BY at_us) AS restarted
    FROM relay
)
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' ELSE 'run' END AS scope, phase,
    count(*) AS polls,
    count(*) FILTER (WHERE error IS NOT NULL) AS polls_failed,
    arg_min(memory_rss_mb, at_us) FILTER (WHERE memory_rss_mb IS NOT NULL) AS memory_start_mb,
    arg_max(memory_rss_mb, at_us) FILTER (WHERE memory_rss_mb IS NOT NULL) AS memory_end_mb,
    max(memory_rss_mb) AS memory_peak_mb,
    max(connections) AS peak_connections,
    max(uptime_s) AS uptime_s,
    count(*) FILTER (WHERE restarted) AS restarts,
    count(DISTINCT pid) AS processes,
    arg_max(pid, at_us) FILTER (WHERE pid IS NOT NULL) AS pid,
    max(version) AS version,
    quantile_cont(response_ms, 0.95) AS response_p95_ms,
    max(cpu_seconds) - min(cpu_seconds) AS cpu_seconds
FROM polls
GROUP BY GROUPING SETS ((), (phase))
ORDER BY scope, phase;
