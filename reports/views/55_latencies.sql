-- Every latency under the name that an objective gives it, a row for each sample.
CREATE VIEW latencies AS
SELECT 'acknowledgement_ms' AS metric, attempt, phase, worker, at_s, second,
    response_ms AS ms, 1.0 AS weight
FROM edit_outcomes WHERE outcome = 'acknowledged'
UNION ALL
SELECT 'acknowledgement_service_ms', attempt, phase, worker, at_s, second, service_ms, 1.0
FROM edit_outcomes WHERE outcome = 'acknowledged' AND service_ms IS NOT NULL
UNION ALL
SELECT 'lateness_ms', attempt, phase, worker, at_s, second, lateness_ms, 1.0
FROM edit_outcomes WHERE lateness_ms IS NOT NULL
UNION ALL
SELECT 'delivery_ms', attempt, phase, worker, at_s, second, response_ms, weight
FROM delivery_latencies WHERE same_worker AND repeat = 1
UNION ALL
SELECT 'delivery_service_ms', attempt, phase, worker, at_s, second, service_ms, weight
FROM delivery_latencies WHERE same_worker AND repeat = 1
UNION ALL
SELECT 'delivery_between_workers_ms', attempt, phase, worker, at_s, second, response_ms, weight
FROM delivery_latencies WHERE NOT same_worker AND repeat = 1
UNION ALL
SELECT
    CASE event
        WHEN 'open' THEN 'connect_ms'
        WHEN 'handshake' THEN 'handshake_ms'
        WHEN 'synced' THEN 'sync_ms'
        ELSE 'bootstrap_ms'
    END,
    attempt, phase, worker, at_s, floor(at_s)::INTEGER, duration_ms, 1.0
FROM connections
WHERE event IN ('open', 'handshake', 'synced', 'bootstrapped') AND duration_ms IS NOT NULL;
