-- Stretches of consecutive seconds in which the generator itself held or tried fewer sockets than
-- $share of the plan: when, how long, and how few at worst. What the relay refuses or drops does
-- not count here, because a socket that is being tried again is one that the generator attempts.
WITH short AS (
    SELECT second, phase, sockets_attempted, connections_target,
        second - row_number() OVER (ORDER BY second) AS stretch
    FROM fleet_seconds
    WHERE phase IS NOT NULL AND connections_target > 0
        AND sockets_attempted < $share * connections_target
)
SELECT min(second) AS from_s, max(second) + 1 AS to_s, count(*) AS seconds,
    min(phase) AS phase, arg_min(sockets_attempted, sockets_attempted / connections_target)
        AS sockets_attempted,
    arg_min(connections_target, sockets_attempted / connections_target) AS connections_target
FROM short GROUP BY stretch ORDER BY from_s;
