-- What did the load cost each worker? Those that were busiest, by the 95th percentile of CPU.
WITH busiest AS (
    SELECT worker FROM worker_seconds GROUP BY worker
    ORDER BY quantile_cont(cpu_percent, 0.95) DESC NULLS LAST, worker LIMIT $workers
),
pairs AS (
    SELECT
        worker, chart_pair(second, $bin_s) AS pair,
        extremes(cpu_percent, second) AS cpu_percent,
        extremes(rss_mb + browser_pss_mb, second) AS memory_mb
    FROM worker_seconds SEMI JOIN busiest USING (worker) GROUP BY worker, pair
)
SELECT g.worker, p.point, g.cpu_percent[p.place] AS cpu_percent, g.memory_mb[p.place] AS memory_mb
FROM chart_points($bin_s) p JOIN pairs g USING (pair)
ORDER BY g.worker, p.point;
