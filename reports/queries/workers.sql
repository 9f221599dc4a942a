-- Each worker of the attempts that count: connections, edits, latencies, CPU, memory, clock.
WITH vitals AS (
    SELECT worker,
        max(connections_open) AS connections_peak,
        arg_max(connections_open, second) AS connections_last,
        avg(connections_healthy) AS connections_healthy,
        avg(cpu_percent) AS cpu_mean_percent, max(cpu_percent) AS cpu_max_percent,
        max(rss_mb) AS agent_memory_max_mb, max(browser_pss_mb) AS browser_memory_max_mb,
        max(js_heap_mb) AS js_heap_max_mb,
        quantile_cont(loop_lag_ms, 0.99) AS loop_lag_p99_ms,
        quantile_cont(page_lag_ms, 0.99) AS page_lag_p99_ms,
        min(second) AS first_s, max(second) AS last_s
    FROM worker_seconds GROUP BY worker
),
made AS (
    SELECT worker,
        count(*) AS edits_offered,
        count(*) FILTER (WHERE outcome = 'acknowledged') AS edits_completed,
        count(*) FILTER (WHERE outcome IN ('failed', 'unacknowledged')) AS edits_failed,
        count(*) FILTER (WHERE outcome = 'missed') AS edits_missed,
        quantile_cont(lateness_ms, 0.99) AS lateness_p99_ms
    FROM edit_outcomes GROUP BY worker
),
wrong AS (SELECT worker, sum(coalesce(weight, 1)) AS errors FROM errors GROUP BY worker),
moved AS (
    SELECT worker, arg_max(offset_ms, attempt) AS clock_offset_ms,
        arg_max(error_ms, attempt) AS clock_error_ms, arg_max(shift_us, attempt) / 1000 AS clock_shift_ms
    FROM clocks GROUP BY worker
),
names AS (
    SELECT worker FROM vitals UNION SELECT worker FROM made UNION SELECT worker FROM wrong
    UNION SELECT worker FROM lost_workers
)
SELECT n.worker, v.* EXCLUDE (worker), m.* EXCLUDE (worker), coalesce(w.errors, 0) AS errors,
    c.* EXCLUDE (worker)
FROM names n LEFT JOIN vitals v USING (worker) LEFT JOIN made m USING (worker)
LEFT JOIN wrong w USING (worker) LEFT JOIN moved c USING (worker)
ORDER BY n.worker;
