-- What is subtracted from each worker's clock so that all stand on the orchestrator's.
-- Offsets are known against the relay only. The worker whose samples begin closest to the
-- instant that the orchestrator gave for a phase stands for the orchestrator; the others are
-- moved by their difference to it. Without an offset a worker is moved only if it is minutes off.
CREATE TABLE clocks AS
WITH offsets AS (
    SELECT
        attempt, worker,
        median(clock_offset_ms) AS offset_ms,
        median(clock_error_ms) AS error_ms,
        min(clock_offset_ms) AS offset_min_ms,
        max(clock_offset_ms) AS offset_max_ms
    FROM all_resources GROUP BY ALL
),
begins AS (
    SELECT attempt, phase, worker, min(at_us) AS first_us FROM all_resources GROUP BY ALL
),
skews AS (
    SELECT b.attempt, b.worker, median((b.first_us - p.started_us) / 1000.0) AS skew_ms
    FROM begins b JOIN phases p ON p.label = b.phase AND p.attempt = b.attempt
    GROUP BY ALL
),
reference AS (
    SELECT attempt, arg_min(offset_ms, abs(skew_ms)) AS offset_ms, min(abs(skew_ms)) AS skew_ms,
        arg_min(skew_ms, abs(skew_ms)) AS signed_skew_ms
    FROM offsets JOIN skews USING (attempt, worker)
    WHERE offset_ms IS NOT NULL GROUP BY attempt
)
SELECT
    o.attempt, o.worker, o.offset_ms, o.error_ms, o.offset_min_ms, o.offset_max_ms, s.skew_ms,
    (1000 * CASE
        WHEN o.offset_ms IS NOT NULL AND r.offset_ms IS NOT NULL
            THEN o.offset_ms - r.offset_ms + if(r.skew_ms > 60000, r.signed_skew_ms, 0)
        WHEN abs(s.skew_ms) > 60000 THEN s.skew_ms
        ELSE 0
    END)::BIGINT AS shift_us
FROM offsets o LEFT JOIN skews s USING (attempt, worker) LEFT JOIN reference r USING (attempt);

-- A worker's offset to the relay in each minute of its own clock, for figures between workers.
CREATE TABLE clock_minutes AS
SELECT
    attempt, worker, at_us // 60000000 AS minute,
    median(clock_offset_ms) AS offset_ms, median(clock_error_ms) AS error_ms
FROM all_resources WHERE clock_offset_ms IS NOT NULL GROUP BY ALL;
