-- The types of errors in a window, the most frequent first, by worker.
SELECT type, worker, sum(coalesce(weight, 1))::DOUBLE AS errors
FROM errors WHERE at_s >= $from_s AND at_s < $to_s
GROUP BY ALL ORDER BY errors DESC, type, worker;
