-- Each drop of a connection, and when it was in sync again (null: it never was).
CREATE VIEW recoveries AS
WITH drops AS (
    SELECT attempt, phase, worker, connection, cause, at_us, at_s
    FROM connections WHERE event = 'dropped'
),
synced AS (
    SELECT attempt, worker, connection, at_us FROM all_connections WHERE event = 'synced'
)
SELECT
    d.attempt, d.phase, d.worker, d.connection, d.cause, d.at_s,
    s.at_us IS NOT NULL AS recovered,
    (s.at_us - d.at_us) / 1000.0 AS recovery_ms
FROM drops d
ASOF LEFT JOIN synced s
    ON s.attempt = d.attempt AND s.worker = d.worker AND s.connection = d.connection
    AND s.at_us > d.at_us;
