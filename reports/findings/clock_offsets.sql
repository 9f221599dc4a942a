-- Each worker's clock against the relay's in tenths of its time in the run: the median offset and
-- its error.
WITH spans AS (
    SELECT attempt, worker, min(at_us) AS first_us, max(at_us) + 1 AS beyond_us
    FROM all_resources GROUP BY ALL
)
SELECT
    r.attempt, r.worker, ((r.at_us - s.first_us) * 10 // (s.beyond_us - s.first_us))::INTEGER AS part,
    median(r.clock_offset_ms) AS offset_ms, median(r.clock_error_ms) AS error_ms,
    min(r.at_s) AS from_s, max(r.at_s) AS to_s
FROM resources r JOIN spans s USING (attempt, worker)
GROUP BY ALL ORDER BY r.attempt, r.worker, part;
