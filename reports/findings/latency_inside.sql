-- Exact quantiles of a latency inside a window of a phase, and in the rest of the phase; and how
-- much later than intended edits began there.
WITH samples AS (
    SELECT second >= $from_s AND second < $to_s AS inside, ms
    FROM latencies WHERE metric = $metric AND phase = $phase
)
SELECT
    inside, count(*) AS count,
    quantile_cont(ms, 0.5) AS p50, quantile_cont(ms, 0.95) AS p95, quantile_cont(ms, 0.99) AS p99
FROM samples GROUP BY inside;
