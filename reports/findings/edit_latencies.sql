-- One latency for each edit: its acknowledgement, and the median of its deliveries (those of one
-- edit go together, so they are one observation, however many there are).
CREATE OR REPLACE TEMP TABLE edit_latencies AS
SELECT 'delivery_ms' AS metric, any_value(phase) AS phase, any_value(worker) AS worker,
     any_value(second) AS second,
    ln(greatest(median(response_ms), 0.05)) AS log_ms
FROM delivery_latencies WHERE same_worker AND repeat = 1 GROUP BY attempt, edit
UNION ALL
SELECT 'acknowledgement_ms', phase, worker, second, ln(greatest(response_ms, 0.05))
FROM edit_outcomes WHERE outcome = 'acknowledged';
