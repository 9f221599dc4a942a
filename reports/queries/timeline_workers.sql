-- Each worker second by second: connections, CPU, memory, lateness.
SELECT w.*, l.lateness_max_ms
FROM worker_seconds w LEFT JOIN (
    SELECT worker, second, max(lateness_ms) AS lateness_max_ms FROM edit_outcomes GROUP BY ALL
) l USING (worker, second)
ORDER BY w.second, w.worker;
