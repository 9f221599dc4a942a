-- What did the relay say of itself: memory, connections, how fast it answered, and when it did not?
WITH seconds AS (SELECT * FROM run_seconds LEFT JOIN relay_seconds USING (second)),
pairs AS (
    SELECT
        chart_pair(second, $bin_s) AS pair,
        extremes(relay_memory_mb, second) AS memory_mb,
        extremes(relay_connections, second) AS connections,
        extremes(relay_response_ms, second) AS response_ms,
        sum(polls_failed) AS failed
    FROM seconds GROUP BY pair
)
SELECT
    p.at_s, g.memory_mb[p.place] AS memory_mb, g.connections[p.place] AS connections,
    g.response_ms[p.place] AS response_ms, coalesce(g.failed, 0) AS polls_failed
FROM chart_points($bin_s) p LEFT JOIN pairs g USING (pair)
ORDER BY p.at_s;
