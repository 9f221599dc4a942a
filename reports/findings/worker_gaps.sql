-- Where a worker's own samples, one a second, are interrupted for more than $least_s: from its
-- last one before to the next, or to the end of the attempt's last phase (`back_s` is null).
WITH spans AS (
    SELECT attempt, min(from_s) AS from_s, max(to_s) AS to_s
    FROM phases WHERE from_s IS NOT NULL GROUP BY attempt
),
sampled AS (
    SELECT r.attempt, r.worker, r.at_s,
        lead(r.at_s) OVER (PARTITION BY r.attempt, r.worker ORDER BY r.at_s) AS back_s, s.to_s
    FROM resources r JOIN spans s USING (attempt)
)
SELECT
    worker, at_s AS silent_s, back_s,
    coalesce(back_s, to_s) AS until_s,
    (SELECT any_value(label) FROM phases p WHERE p.from_s <= at_s + 1 AND p.to_s > at_s + 1) AS phase,
    (SELECT any_value(planned_s > 0 AND complete) FROM phases p
        WHERE p.from_s <= at_s + 1 AND p.to_s > at_s + 1) AS complete
FROM sampled
WHERE coalesce(back_s, to_s) - at_s > $least_s
ORDER BY at_s, worker;
