-- Errors that are the same but for numbers, hashes and quoted names: the 50 most frequent, with
-- counts (weighted), first and last time, workers, and one of them as an example.
WITH printed AS (
    SELECT type, message, at_s, worker, coalesce(weight, 1) AS weight,
        left(regexp_replace(
            regexp_replace(
                regexp_replace(coalesce(message, ''), '"[^"]*"|''[^'']*''', '"…"', 'g'),
                '\b(0x)?[0-9a-fA-F]*[0-9][0-9a-fA-F]*\b', '#', 'g'),
            '\d+', '#', 'g'), 200) AS fingerprint
    FROM errors
)
SELECT
    type, fingerprint, sum(weight) AS count, min(at_s) AS first_s, max(at_s) AS last_s,
    count(DISTINCT worker) AS workers, left(arg_min(message, at_s), 500) AS example,
    count(*) OVER () AS groups
FROM printed GROUP BY type, fingerprint
ORDER BY count DESC, type, fingerprint LIMIT 50;
