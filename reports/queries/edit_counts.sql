-- What became of the edits of the schedule, in the run, each phase and each worker.
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' WHEN grouping(worker) = 0 THEN 'worker' ELSE 'run' END
        AS scope,
    phase, worker,
    count(*) AS offered,
    count(*) FILTER (WHERE started_us IS NOT NULL) AS started,
    count(*) FILTER (WHERE outcome = 'acknowledged') AS acknowledged,
    count(*) FILTER (WHERE outcome = 'failed') AS failed,
    count(*) FILTER (WHERE outcome = 'unacknowledged') AS unacknowledged,
    count(*) FILTER (WHERE outcome = 'missed') AS missed,
    count(*) FILTER (WHERE held) AS held
FROM edit_outcomes
GROUP BY GROUPING SETS ((), (phase), (worker))
ORDER BY scope, phase, worker;
