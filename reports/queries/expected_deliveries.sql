-- Whether each acknowledged edit reached every other connection that it should have, in the run
-- and each phase: connections whose replica was in sync when it was made and stayed until 5 s
-- after it was acknowledged. Where a worker recorded a sample of its deliveries only, `delivered`
-- and `share` are estimates by weight, and `edits_delivered_to_all` is not known (null).
WITH lost AS (SELECT attempt, edit, true AS is_lost FROM lost_edits)
SELECT
    CASE WHEN grouping(e.phase) = 0 THEN 'phase' ELSE 'run' END AS scope, e.phase,
    count(*) AS edits,
    coalesce(sum(d.expected), 0)::BIGINT AS expected,
    coalesce(round(sum(w.weight)), 0)::BIGINT AS delivered,
    sum(w.weight) / sum(d.expected) AS share,
    CASE WHEN coalesce(sum(d.sampled), 0) = 0 THEN count(*) FILTER (WHERE d.undelivered = 0) END
        AS edits_delivered_to_all,
    count(*) FILTER (WHERE l.is_lost) AS edits_lost
FROM edit_outcomes e
LEFT JOIN edit_deliveries d USING (attempt, edit)
LEFT JOIN delivered_weights w USING (attempt, edit)
LEFT JOIN lost l USING (attempt, edit)
WHERE e.outcome = 'acknowledged'
GROUP BY GROUPING SETS ((), (e.phase))
ORDER BY scope, e.phase;
