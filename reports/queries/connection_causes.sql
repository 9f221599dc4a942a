-- Why connections failed or dropped: each cause, how often, first and last time.
SELECT event, coalesce(cause, 'unknown') AS cause, count(*) AS count,
    min(at_s) AS first_s, max(at_s) AS last_s
FROM connections WHERE event IN ('failed', 'dropped')
GROUP BY ALL ORDER BY count DESC, event, cause;
