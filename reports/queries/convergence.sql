-- Each document at the last look at its replicas, while nothing wrote: how many replicas, how
-- many were in sync, how many differ from what most show, and how long after the document's last
-- edit the last replica changed. First 1000, the worst first.
WITH last_edits AS (
    SELECT attempt, document, generation, max(started_us - coalesce(shift_us, 0)) AS at_us
    FROM edit_outcomes LEFT JOIN clocks USING (attempt, worker)
    WHERE started_us IS NOT NULL GROUP BY ALL
)
SELECT
    r.document, r.generation,
    count(*) AS replicas,
    count(*) FILTER (WHERE r.in_sync) AS in_sync,
    count(*) FILTER (WHERE r.diverged) AS diverged,
    count(DISTINCT r.heads) AS states,
    max(len(r.missing)) AS missing_max,
    greatest((max(r.changed_us) - any_value(e.at_us)) / 1000.0, 0) AS converged_ms
FROM replica_states r LEFT JOIN last_edits e USING (attempt, document, generation)
GROUP BY r.attempt, r.document, r.generation
ORDER BY diverged DESC, r.document, r.generation
LIMIT 1000;
