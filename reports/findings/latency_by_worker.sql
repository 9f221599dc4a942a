-- Median latency of each worker's own edits in $blocks equal parts of a phase, each edit once.
WITH phase AS (SELECT from_s, to_s FROM phases WHERE label = $phase)
SELECT
    metric, worker,
    least(floor((second - from_s) / (to_s - from_s) * $blocks), $blocks - 1)::INTEGER AS block,
    count(*) AS count, exp(median(log_ms)) AS p50
FROM edit_latencies, phase
WHERE edit_latencies.phase = $phase AND second >= from_s AND second < to_s
GROUP BY ALL ORDER BY metric, worker, block;
