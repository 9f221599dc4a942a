-- How each worker's median latency in a window compares with the rest of its phase, with how late
-- its edits began in both: which workers moved, and whether they themselves were late.
SELECT
    worker,
    quantile_cont(ms, 0.5) FILTER (WHERE inside) AS inside_ms,
    quantile_cont(ms, 0.5) FILTER (WHERE NOT inside) AS outside_ms,
    count(*) FILTER (WHERE inside) AS count
FROM (
    SELECT worker, ms, second >= $from_s AND second < $to_s AS inside
    FROM latencies WHERE metric = $metric AND phase = $phase
)
GROUP BY worker ORDER BY worker;
