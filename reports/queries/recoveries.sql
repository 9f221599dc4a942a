-- Drops and how long connections took until in sync again, in the run and each phase.
-- `recovered_by_s` is when the last dropped connection was back, `first_drop_s` when it began.
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' ELSE 'run' END AS scope, phase,
    count(*) AS dropped,
    count(*) FILTER (WHERE recovered) AS recovered,
    quantile_cont(recovery_ms, 0.5) AS p50,
    quantile_cont(recovery_ms, 0.95) AS p95,
    quantile_cont(recovery_ms, 0.99) AS p99,
    max(recovery_ms) AS max,
    min(at_s) AS first_drop_s,
    max(at_s + recovery_ms / 1000) AS recovered_by_s
FROM recoveries
GROUP BY GROUPING SETS ((), (phase))
ORDER BY scope, phase;
