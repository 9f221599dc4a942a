-- Each worker's clock against the relay's: median offset, bound of its error, range of the offset,
-- and by how much the worker was moved to stand on the orchestrator's time.
SELECT attempt, worker, offset_ms, error_ms, offset_min_ms, offset_max_ms, shift_us / 1000 AS shift_ms
FROM clocks ORDER BY attempt, worker;
