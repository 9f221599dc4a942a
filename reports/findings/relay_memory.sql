-- The relay's memory and connections in each second of each phase in which it answered.
SELECT s.phase, s.second, r.relay_memory_mb AS memory_mb, r.relay_connections AS connections,
    f.connections_open
FROM run_seconds s JOIN relay_seconds r USING (second) LEFT JOIN fleet_seconds f USING (second)
WHERE s.phase IS NOT NULL AND r.relay_memory_mb IS NOT NULL
ORDER BY s.second;
