-- Replicas at the last look, in the run and by the phase of that look: how many, in sync,
-- diverged, in how many documents, and the longest time from a document's last edit until the
-- last of its replicas changed.
WITH last_edits AS (
    SELECT attempt, document, generation, max(started_us - coalesce(shift_us, 0)) AS at_us
    FROM edit_outcomes LEFT JOIN clocks USING (attempt, worker)
    WHERE started_us IS NOT NULL GROUP BY ALL
),
documents AS (
    SELECT
        max(r.phase) AS phase,
        count(*) AS replicas, count(*) FILTER (WHERE in_sync) AS in_sync,
        count(*) FILTER (WHERE diverged) AS diverged,
        greatest((max(changed_us) - any_value(e.at_us)) / 1000.0, 0) AS converged_ms
    FROM replica_states r LEFT JOIN last_edits e USING (attempt, document, generation)
    GROUP BY r.attempt, r.document, r.generation
)
SELECT
    CASE WHEN grouping(phase) = 0 THEN 'phase' ELSE 'run' END AS scope, phase,
    count(*) AS documents, coalesce(sum(replicas), 0)::BIGINT AS replicas,
    coalesce(sum(in_sync), 0)::BIGINT AS in_sync, coalesce(sum(diverged), 0)::BIGINT AS diverged,
    count(*) FILTER (WHERE diverged = 0) AS documents_converged,
    max(converged_ms) AS converged_max_ms
FROM documents
GROUP BY GROUPING SETS ((), (phase))
ORDER BY scope, phase;
