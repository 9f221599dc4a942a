-- As 60_distributions, for samples of which some stand for several. A row of weight w counts as
-- w equal samples: with W the sum of weights, the q-quantile is at position q (W - 1); a row
-- covers the positions from the weight before it to that plus w - 1, and between two rows the
-- value moves in a straight line. With all weights 1 this is quantile_cont.
CREATE MACRO quantile_at(ms, next_ms, upto, place) AS
    coalesce(
        arg_min(
            CASE WHEN place <= upto - 1 OR next_ms IS NULL THEN ms
                ELSE ms + (place - (upto - 1)) * (next_ms - ms) END,
            upto
        ) FILTER (WHERE upto > place),
        max(ms)
    );

CREATE MACRO distribution_of(wanted) AS TABLE
WITH samples AS (
    SELECT 'run' AS scope, NULL AS phase, NULL AS worker, ms, weight
    FROM latencies WHERE metric = wanted
    UNION ALL
    SELECT 'phase', phase, NULL, ms, weight FROM latencies WHERE metric = wanted
    UNION ALL
    SELECT 'worker', NULL, worker, ms, weight FROM latencies WHERE metric = wanted
),
ranked AS (
    SELECT *,
        sum(weight) OVER ranks AS upto,
        lead(ms) OVER (PARTITION BY scope, phase, worker ORDER BY ms, weight) AS next_ms,
        sum(weight) OVER (PARTITION BY scope, phase, worker) AS total
    FROM samples
    WINDOW ranks AS (
        PARTITION BY scope, phase, worker ORDER BY ms, weight
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)
SELECT
    scope, phase, worker,
    sum(weight) AS count,
    count(*) AS samples,
    min(ms) AS min,
    fsum(ms * weight) / sum(weight) AS mean,
    quantile_at(ms, next_ms, upto, 0.5 * (total - 1)) AS p50,
    quantile_at(ms, next_ms, upto, 0.95 * (total - 1)) AS p95,
    quantile_at(ms, next_ms, upto, 0.99 * (total - 1)) AS p99,
    max(ms) AS max
FROM ranked
GROUP BY scope, phase, worker;

CREATE MACRO distribution_by_second(wanted) AS TABLE
WITH ranked AS (
    SELECT second, ms, weight,
        sum(weight) OVER (
            PARTITION BY second ORDER BY ms, weight
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS upto,
        lead(ms) OVER (PARTITION BY second ORDER BY ms, weight) AS next_ms,
        sum(weight) OVER (PARTITION BY second) AS total
    FROM latencies WHERE metric = wanted
)
SELECT
    second,
    sum(weight) AS count,
    quantile_at(ms, next_ms, upto, 0.5 * (total - 1)) AS p50,
    quantile_at(ms, next_ms, upto, 0.95 * (total - 1)) AS p95,
    quantile_at(ms, next_ms, upto, 0.99 * (total - 1)) AS p99,
    max(ms) AS max
FROM ranked
GROUP BY second;

CREATE MACRO distribution_by_window(wanted, wanted_phase, from_s, starts, length_s) AS TABLE
WITH samples AS (
    SELECT floor(at_s - from_s)::INTEGER AS bin, ms, weight
    FROM latencies WHERE metric = wanted AND (wanted_phase IS NULL OR phase = wanted_phase)
),
ranked AS (
    SELECT w.start, ms, weight,
        sum(weight) OVER (
            PARTITION BY w.start ORDER BY ms, weight
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS upto,
        lead(ms) OVER (PARTITION BY w.start ORDER BY ms, weight) AS next_ms,
        sum(weight) OVER (PARTITION BY w.start) AS total
    FROM generate_series(0, starts) AS w(start)
    JOIN samples s ON s.bin >= w.start AND s.bin < w.start + length_s
)
SELECT
    from_s + start AS from_s, from_s + start + length_s AS to_s,
    sum(weight) AS count, min(ms) AS min, fsum(ms * weight) / sum(weight) AS mean,
    quantile_at(ms, next_ms, upto, 0.5 * (total - 1)) AS p50,
    quantile_at(ms, next_ms, upto, 0.95 * (total - 1)) AS p95,
    quantile_at(ms, next_ms, upto, 0.99 * (total - 1)) AS p99,
    max(ms) AS max
FROM ranked
GROUP BY start;
