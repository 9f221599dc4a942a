-- Whether each acknowledged edit reached every other connection that it should have, in the run
-- and each phase: connections whose replica was in sync when it was made and stayed until 5 s
-- after it was acknowledged. `share` is by weight where deliveries were thinned.
WITH lost AS (SELECT attempt, edit, true AS is_lost FROM lost_edits)
SELECT
    CASE WHEN grouping(e.phase) = 0 THEN 'phase' ELSE 'run' END AS scope, e.phase,
    count(*) AS edits,
    coalesce(sum(d.expected), 0)::BIGINT AS expected,
    coalesce(sum(d.delivered), 0)::BIGINT AS delivered,
    sum(w.weight) / sum(d.expected) AS share,
    count(*) FILTER (WHERE d.delivered = d.expected) AS edits_delivered_to_all,
    count(*) FILTER (WHERE l.is_lost) AS edits_lost
FROM edit_outcomes e
LEFT JOIN edit_deliveries d USING (attempt, edit)
LEFT JOIN delivered_weights w USING (attempt, edit)
LEFT JOIN lost l USING (attempt, edit)
WHERE e.outcome = 'acknowledged'
GROUP BY GROUPING SETS ((), (e.phase))
ORDER BY scope, e.phase;
