-- The documents whose replicas do not show the same at their last look, and those that lack
-- acknowledged edits.
WITH lost AS (
    SELECT attempt, phase, document, generation, count(*) AS edits_lost,
        min(at_s) AS from_s, max(at_s) AS to_s
    FROM lost_edits GROUP BY ALL
),
states AS (
    SELECT attempt, any_value(phase) AS phase, document, generation, count(*) AS replicas,
        count(*) FILTER (WHERE diverged) AS diverged, count(DISTINCT heads) AS states,
        min(at_s) AS from_s, max(at_s) AS to_s,
        list(DISTINCT worker) FILTER (WHERE diverged) AS workers
    FROM replica_states GROUP BY attempt, document, generation
)
SELECT
    coalesce(s.phase, l.phase) AS phase, document, generation,
    coalesce(s.replicas, 0) AS replicas, coalesce(s.diverged, 0) AS diverged,
    coalesce(s.states, 0) AS states, coalesce(l.edits_lost, 0) AS edits_lost,
    s.workers, least(l.from_s, s.from_s) AS from_s, greatest(l.to_s, s.to_s) AS to_s
FROM states s FULL JOIN lost l USING (attempt, document, generation)
WHERE coalesce(s.diverged, 0) > 0 OR coalesce(l.edits_lost, 0) > 0
ORDER BY document, generation;
