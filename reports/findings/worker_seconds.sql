-- Each worker in each second: how busy and how late it was, and what it dropped and missed.
WITH late AS (
    SELECT worker, second, max(lateness_ms) AS lateness_ms,
        count(*) FILTER (WHERE outcome = 'missed') AS missed
    FROM edit_outcomes GROUP BY ALL
),
ended AS (
    SELECT worker, floor(at_s)::INTEGER AS second, count(*) AS drops
    FROM connections
    WHERE event = 'dropped' AND cause IS DISTINCT FROM 'dropped_on_purpose' GROUP BY ALL
)
SELECT
    w.second, w.phase, w.worker,
    coalesce(w.cpu_percent, 0) AS cpu_percent,
    greatest(coalesce(w.loop_lag_ms, 0), coalesce(w.page_lag_ms, 0)) AS lag_ms,
    coalesce(l.lateness_ms, 0) AS lateness_ms, coalesce(l.missed, 0) AS missed,
    coalesce(e.drops, 0) AS drops, coalesce(w.connections_open, 0) AS connections_open
FROM worker_seconds w
LEFT JOIN late l USING (worker, second) LEFT JOIN ended e USING (worker, second)
WHERE w.phase IS NOT NULL
ORDER BY w.worker, w.second;
