-- Connections and their health in the run and each phase, from the fleet's seconds: largest
-- number open, target, and means of the healthy and of their share of the target.
-- `judged` means of sustained, stress and storm phases only.
SELECT
    CASE WHEN grouping(f.phase) = 0 THEN 'phase' ELSE 'run' END AS scope, f.phase,
    max(f.connections_open) AS peak, max(f.connections_target) AS target,
    min(f.connections_healthy) AS healthy_min,
    avg(f.connections_healthy) AS healthy_mean,
    avg(f.connections_healthy) FILTER (WHERE p.kind IN ('sustained', 'stress', 'storm'))
        AS healthy_judged_mean,
    100 * avg(least(f.connections_healthy / nullif(f.connections_target, 0), 1)) AS score,
    100 * avg(least(f.connections_healthy / nullif(f.connections_target, 0), 1))
        FILTER (WHERE p.kind = 'sustained') AS score_sustained
FROM fleet_seconds f JOIN phases p ON p.label = f.phase
GROUP BY GROUPING SETS ((), (f.phase))
ORDER BY scope, f.phase;
