-- Errors of each type second by second (weighted).
SELECT floor(at_s)::INTEGER AS second, type, sum(coalesce(weight, 1)) AS count
FROM errors GROUP BY ALL ORDER BY second, type;
