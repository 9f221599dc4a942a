-- What became of each edit of the schedule, and how long it took.
-- `response_ms` counts from the intended time (what a user waits); `service_ms` from the start.
-- `lateness_ms` is the generator's own: null if the edit waited for its connection.
CREATE TABLE edit_outcomes AS
SELECT
    attempt, phase, worker, edit, document, generation, connection,
    intended_us, started_us, acknowledged_us, at_s, error,
    coalesce(held, false) AS held,
    floor(at_s)::INTEGER AS second,
    at_s + (acknowledged_us - intended_us) / 1e6 AS acknowledged_s,
    CASE
        WHEN error = 'missed' THEN 'missed'
        WHEN error IS NOT NULL THEN 'failed'
        WHEN acknowledged_us IS NOT NULL THEN 'acknowledged'
        ELSE 'unacknowledged'
    END AS outcome,
    (acknowledged_us - intended_us) / 1000.0 AS response_ms,
    (acknowledged_us - started_us) / 1000.0 AS service_ms,
    CASE WHEN coalesce(held, false) THEN NULL ELSE (started_us - intended_us) / 1000.0 END
        AS lateness_ms
FROM edits;

-- Whose clock each edit's times are on.
CREATE TABLE edit_workers AS
SELECT attempt, edit, any_value(worker) AS worker FROM all_edits GROUP BY attempt, edit;
