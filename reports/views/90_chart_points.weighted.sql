-- As 90_chart_points, for samples of which some stand for several (see 60_distributions.weighted).
CREATE MACRO chart_points(bin_s) AS TABLE
SELECT
    point,
    point * bin_s + (bin_s - 1) / 2.0 AS at_s,
    if(bin_s = 1, point, point // 2) AS pair,
    if(bin_s = 1, 1, point % 2 + 1) AS place
FROM (SELECT DISTINCT second // bin_s AS point FROM run_seconds);

CREATE MACRO chart_pair(second, bin_s) AS if(bin_s = 1, second, second // (2 * bin_s));

-- The lowest and the highest of the values in a pair, in the order in which they came.
CREATE MACRO extremes(value, second) AS
    if(arg_min(second, value) <= arg_max(second, value),
        [min(value), max(value)], [max(value), min(value)]);

CREATE MACRO distribution_by_point(wanted, bin_s) AS TABLE
WITH ranked AS (
    SELECT second // bin_s AS point, ms, weight,
        sum(weight) OVER (
            PARTITION BY second // bin_s ORDER BY ms, weight
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS upto,
        lead(ms) OVER (PARTITION BY second // bin_s ORDER BY ms, weight) AS next_ms,
        sum(weight) OVER (PARTITION BY second // bin_s) AS total
    FROM latencies WHERE metric = wanted
)
SELECT
    point,
    sum(weight) AS count,
    [
        quantile_at(ms, next_ms, upto, 0.5 * (total - 1)),
        quantile_at(ms, next_ms, upto, 0.95 * (total - 1)),
        quantile_at(ms, next_ms, upto, 0.99 * (total - 1))
    ] AS quantiles,
    max(ms) AS max
FROM ranked
GROUP BY point;
