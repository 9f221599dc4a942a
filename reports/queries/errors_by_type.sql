-- Errors of each type, in the run: how many (weighted), first and last time.
SELECT type, sum(coalesce(weight, 1)) AS count, min(at_s) AS first_s, max(at_s) AS last_s
FROM errors GROUP BY type ORDER BY count DESC, type;
