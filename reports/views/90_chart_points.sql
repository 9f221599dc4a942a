-- The points in time at which every chart has a value: a point stands for `bin_s` seconds.
-- Two neighbours make a pair, in which gauges keep their lowest and highest value (`extremes`);
-- where a point is one second nothing is thinned and each is a pair of its own.
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

-- Exact quantiles of all samples of a latency that fall into each point.
CREATE MACRO distribution_by_point(wanted, bin_s) AS TABLE
SELECT
    second // bin_s AS point,
    count(*)::DOUBLE AS count,
    quantile_cont(ms, [0.5, 0.95, 0.99]) AS quantiles,
    max(ms) AS max
FROM latencies WHERE metric = wanted
GROUP BY point;
