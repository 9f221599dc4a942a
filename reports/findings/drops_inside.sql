-- The connections dropped in a window: by worker and cause, the most frequent first.
SELECT worker, coalesce(cause, '') AS cause, count(*) AS drops
FROM connections
WHERE event = 'dropped' AND cause IS DISTINCT FROM 'dropped_on_purpose'
    AND at_s >= $from_s AND at_s < $to_s
GROUP BY ALL ORDER BY drops DESC, worker, cause;
