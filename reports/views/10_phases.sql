-- Phases on the run's own time: seconds since its first phase began, by the orchestrator's clock.
-- An incomplete phase ends with its last sample.
CREATE TABLE phases AS
WITH sampled AS (
    SELECT phase AS label, attempt, min(at_us) AS first_us, max(at_us) AS last_us
    FROM all_resources GROUP BY ALL
),
timed AS (
    SELECT
        f.* EXCLUDE (started_us, ended_us),
        coalesce(f.started_us, s.first_us) AS started_us,
        CASE
            WHEN f.complete THEN f.ended_us
            ELSE greatest(s.last_us, coalesce(f.started_us, s.first_us))
        END AS ended_us
    FROM phase_facts f LEFT JOIN sampled s USING (label, attempt)
)
SELECT
    t.*,
    t.kind IN ('sustained', 'stress') AS judged,
    (t.started_us - r.origin_us) / 1e6 AS from_s,
    (t.ended_us - r.origin_us) / 1e6 AS to_s
FROM timed t, run r
ORDER BY t.index, t.started_us, t.label;
