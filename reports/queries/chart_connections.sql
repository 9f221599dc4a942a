-- How many connections were planned, open, in sync and healthy, and how many did the relay count?
WITH seconds AS (
    SELECT * FROM run_seconds LEFT JOIN fleet_seconds USING (second) LEFT JOIN relay_seconds USING (second)
),
pairs AS (
    SELECT
        chart_pair(second, $bin_s) AS pair,
        extremes(connections_target, second) AS target,
        extremes(connections_open, second) AS open,
        extremes(connections_healthy, second) AS healthy,
        extremes(relay_connections, second) AS relay
    FROM seconds GROUP BY pair
)
SELECT
    p.at_s, g.target[p.place] AS target, g.open[p.place] AS open,
    g.healthy[p.place] AS healthy, g.relay[p.place] AS relay
FROM chart_points($bin_s) p LEFT JOIN pairs g USING (pair)
ORDER BY p.at_s;
