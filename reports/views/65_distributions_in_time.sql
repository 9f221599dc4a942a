-- Figures of one latency for each second of the run.
CREATE MACRO distribution_by_second(wanted) AS TABLE
SELECT second, count,
    quantiles[1] AS p50, quantiles[2] AS p95, quantiles[3] AS p99, max
FROM (
    SELECT
        second,
        sum(weight) AS count,
        quantile_cont(ms, [0.5, 0.95, 0.99]) AS quantiles,
        max(ms) AS max
    FROM latencies
    WHERE metric = wanted
    GROUP BY second
);

-- The same for every window of a length, each a second after the one before it, within `from_s`
-- to `to_s`; a window that begins at s takes in what was intended from s on, up to its length.
CREATE MACRO distribution_by_window(wanted, wanted_phase, from_s, starts, length_s) AS TABLE
WITH samples AS (
    SELECT floor(at_s - from_s)::INTEGER AS bin, ms
    FROM latencies
    WHERE metric = wanted AND (wanted_phase IS NULL OR phase = wanted_phase)
        AND at_s >= from_s AND at_s < from_s + starts + length_s
)
SELECT
    from_s + start AS from_s, from_s + start + length_s AS to_s, count, min, mean,
    quantiles[1] AS p50, quantiles[2] AS p95, quantiles[3] AS p99, max
FROM (
    SELECT
        w.start, count(*)::DOUBLE AS count, min(ms) AS min, favg(ms) AS mean,
        quantile_cont(ms, [0.5, 0.95, 0.99]) AS quantiles, max(ms) AS max
    FROM generate_series(0, starts) AS w(start)
    JOIN samples s ON s.bin >= w.start AND s.bin < w.start + length_s
    GROUP BY w.start
);
