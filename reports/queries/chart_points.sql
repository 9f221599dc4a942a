-- Which points in time do the charts show, and to which phase does each belong?
SELECT p.point, p.at_s, min(s.phase) AS phase
FROM chart_points($bin_s) p JOIN run_seconds s ON s.second // $bin_s = p.point
GROUP BY p.point, p.at_s
ORDER BY p.at_s;
