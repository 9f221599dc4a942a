-- As 65_distributions_in_time, for a run of which some deliveries stand for several: exact
-- quantiles of weighted rows need a sort, which only such a run pays for.
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
    FROM latencies
    WHERE metric = wanted AND (wanted_phase IS NULL OR phase = wanted_phase)
        AND at_s >= from_s AND at_s < from_s + starts + length_s
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
