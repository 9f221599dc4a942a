-- Errors of each type of each worker, in the run (weighted).
SELECT worker, type, sum(coalesce(weight, 1)) AS count
FROM errors GROUP BY ALL ORDER BY worker, count DESC, type;
