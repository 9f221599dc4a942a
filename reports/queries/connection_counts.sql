-- What connections did, in the run, each phase and each worker: events counted.
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' WHEN grouping(worker) = 0 THEN 'worker' ELSE 'run' END
        AS scope,
    phase, worker,
    count(DISTINCT connection) AS connections,
    count(*) FILTER (WHERE event = 'opening') AS attempted,
    count(*) FILTER (WHERE event = 'open') AS opened,
    count(*) FILTER (WHERE event = 'handshake') AS handshakes,
    count(*) FILTER (WHERE event = 'failed') AS failed,
    count(*) FILTER (WHERE event = 'dropped') AS dropped,
    count(*) FILTER (WHERE event = 'closed') AS closed
FROM connections
GROUP BY GROUPING SETS ((), (phase), (worker))
ORDER BY scope, phase, worker;
