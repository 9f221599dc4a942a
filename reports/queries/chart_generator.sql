-- Was the generator late by its own fault? Edits against the schedule, and timers of pages and
-- agents: the worst of all workers. Also the busiest worker's CPU.
WITH seconds AS (SELECT * FROM run_seconds LEFT JOIN fleet_seconds USING (second)),
pairs AS (
    SELECT
        chart_pair(second, $bin_s) AS pair,
        extremes(page_lag_max_ms, second) AS page_lag_ms,
        extremes(loop_lag_max_ms, second) AS loop_lag_ms,
        extremes(cpu_percent_max, second) AS cpu_percent
    FROM seconds GROUP BY pair
)
SELECT
    p.at_s, d.quantiles[3] AS lateness_p99_ms, g.page_lag_ms[p.place] AS page_lag_ms,
    g.loop_lag_ms[p.place] AS loop_lag_ms, g.cpu_percent[p.place] AS cpu_percent
FROM chart_points($bin_s) p
LEFT JOIN pairs g USING (pair)
LEFT JOIN distribution_by_point('lateness_ms', $bin_s) d USING (point)
ORDER BY p.at_s;
