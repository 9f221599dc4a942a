-- A row of weight w counts as w equal samples: with W the sum of weights, the q-quantile is at
-- place q (W - 1); a row covers the places from the weight before it to that plus w - 1, and
-- between two rows the value moves in a straight line. With all weights 1 this is quantile_cont
-- (linear between closest ranks; Hyndman and Fan's type 7). `upto` is the sum of weights up to and
-- with the row, `next_ms` the value of the row behind it.
CREATE MACRO quantile_at(ms, next_ms, upto, place) AS
    coalesce(
        arg_min(
            CASE WHEN place <= upto - 1 OR next_ms IS NULL THEN ms
                ELSE ms + (place - (upto - 1)) * (next_ms - ms) END,
            upto
        ) FILTER (WHERE upto > place),
        max(ms)
    );

-- Figures of one latency for the run, each phase and each worker: exact quantiles of all samples
-- pooled. Equal values are counted together first, so that ten million samples take the memory of
-- the different microseconds among them.
CREATE MACRO distribution_of(wanted) AS TABLE
WITH counted AS (
    SELECT phase, worker, ms, sum(weight) AS weight, count(*) AS samples
    FROM latencies WHERE metric = wanted GROUP BY phase, worker, ms
),
scoped AS (
    SELECT
        CASE WHEN grouping(phase) = 0 THEN 'phase' WHEN grouping(worker) = 0 THEN 'worker'
            ELSE 'run' END AS scope,
        phase, worker, ms, sum(weight) AS weight, sum(samples)::BIGINT AS samples
    FROM counted GROUP BY GROUPING SETS ((ms), (phase, ms), (worker, ms))
),
ranked AS (
    SELECT *,
        sum(weight) OVER (
            PARTITION BY scope, phase, worker ORDER BY ms
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS upto,
        lead(ms) OVER (PARTITION BY scope, phase, worker ORDER BY ms) AS next_ms,
        sum(weight) OVER (PARTITION BY scope, phase, worker) AS total
    FROM scoped
)
SELECT
    scope, phase, worker,
    sum(weight) AS count,
    sum(samples)::BIGINT AS samples,
    min(ms) AS min,
    fsum(ms * weight) / sum(weight) AS mean,
    quantile_at(ms, next_ms, upto, 0.5 * (total - 1)) AS p50,
    quantile_at(ms, next_ms, upto, 0.95 * (total - 1)) AS p95,
    quantile_at(ms, next_ms, upto, 0.99 * (total - 1)) AS p99,
    max(ms) AS max
FROM ranked
GROUP BY scope, phase, worker;
