-- Median and 95th percentile of each worker's deliveries and acknowledgements in $blocks equal
-- parts of a phase, from pooled samples.
WITH phase AS (SELECT from_s, to_s FROM phases WHERE label = $phase),
samples AS (
    SELECT 'delivery_ms' AS metric, worker, second, response_ms AS ms FROM delivery_latencies
    WHERE phase = $phase AND same_worker AND repeat = 1
    UNION ALL
    SELECT 'acknowledgement_ms', worker, second, response_ms FROM edit_outcomes
    WHERE phase = $phase AND outcome = 'acknowledged'
)
SELECT
    metric, worker,
    least(floor((second - from_s) / (to_s - from_s) * $blocks), $blocks - 1)::INTEGER AS block,
    count(*) AS count, quantile_cont(ms, 0.5) AS p50, quantile_cont(ms, 0.95) AS p95
FROM samples, phase
WHERE second >= from_s AND second < to_s
GROUP BY ALL ORDER BY metric, worker, block;
