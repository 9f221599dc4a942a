-- Each worker's seconds in each phase: how many, in how many its CPU was above $cpu_percent while
-- something of it was later than $late_ms, and in how many its pages' timers were later than that.
WITH late AS (
    SELECT worker, second, max(lateness_ms) AS lateness_ms FROM edit_outcomes GROUP BY ALL
)
SELECT
    w.phase, w.worker, p.judged, p.from_s, p.to_s, count(*) AS seconds,
    count(*) FILTER (WHERE w.cpu_percent > $cpu_percent AND greatest(
        coalesce(l.lateness_ms, 0), coalesce(w.loop_lag_ms, 0), coalesce(w.page_lag_ms, 0)
    ) > $late_ms) AS busy_and_late_seconds,
    count(*) FILTER (WHERE w.page_lag_ms > $late_ms) AS page_late_seconds,
    max(w.cpu_percent) AS cpu_max_percent, max(w.page_lag_ms) AS page_lag_max_ms
FROM worker_seconds w JOIN phases p ON p.label = w.phase LEFT JOIN late l USING (worker, second)
GROUP BY ALL ORDER BY w.phase, w.worker;
