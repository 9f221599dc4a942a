-- How often one latency ($metric) fell where, in the whole run: buckets of a tenth of a decade.
SELECT
    pow(10, bucket / 10.0) AS from_ms, pow(10, (bucket + 1) / 10.0) AS to_ms, count
FROM (
    SELECT floor(log10(greatest(ms, 0.01)) * 10)::INTEGER AS bucket, sum(weight) AS count
    FROM latencies WHERE metric = $metric GROUP BY bucket
)
ORDER BY from_ms;
