-- Deliveries in the run and each phase: how many (weighted), shown again, and whether all rows
-- were recorded or some stand for several.
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' ELSE 'run' END AS scope, phase,
    coalesce(sum(weight) FILTER (WHERE repeat = 1), 0) AS deliveries,
    coalesce(sum(weight) FILTER (WHERE repeat > 1), 0) AS repeats,
    coalesce(sum(weight) FILTER (WHERE repeat = 1 AND same_worker), 0) AS within_workers,
    count(*) AS samples,
    coalesce(max(weight), 1) AS max_weight,
    max(error_ms) AS clock_error_max_ms
FROM delivery_latencies
GROUP BY GROUPING SETS ((), (phase))
ORDER BY scope, phase;
