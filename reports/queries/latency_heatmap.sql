-- How often one latency ($metric) fell where, over time: slices of $slice_s seconds of run time
-- by buckets of a tenth of a decade.
SELECT
    slice * $slice_s AS from_s, pow(10, bucket / 10.0) AS from_ms,
    pow(10, (bucket + 1) / 10.0) AS to_ms, count
FROM (
    SELECT
        second // $slice_s::INTEGER AS slice,
        floor(log10(greatest(ms, 0.01)) * 10)::INTEGER AS bucket,
        sum(weight) AS count
    FROM latencies WHERE metric = $metric GROUP BY slice, bucket
)
ORDER BY from_s, from_ms;
