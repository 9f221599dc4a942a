-- Reconnect storms: how many connections dropped in each storm phase, how many came back, and
-- how long from the first drop until all that dropped were in sync again (null: not all were).
SELECT
    p.label AS phase, count(r.connection) AS dropped,
    count(*) FILTER (WHERE r.recovered) AS recovered,
    CASE WHEN bool_and(r.recovered) THEN max(r.at_s + r.recovery_ms / 1000) - min(r.at_s) END
        AS recovery_s
FROM phases p LEFT JOIN recoveries r ON r.phase = p.label
WHERE p.kind = 'storm'
GROUP BY p.label ORDER BY p.label;
