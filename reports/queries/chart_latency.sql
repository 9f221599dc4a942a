-- What were the quantiles of a latency over time, from all samples that fall into each point?
SELECT
    p.at_s, d.quantiles[1] AS p50, d.quantiles[2] AS p95, d.quantiles[3] AS p99, d.max, d.count
FROM chart_points($bin_s) p LEFT JOIN distribution_by_point($metric, $bin_s) d USING (point)
ORDER BY p.at_s;
