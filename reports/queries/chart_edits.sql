-- How many edits a second did the schedule hold, how many were acknowledged, and how many were not?
-- `done` counts an edit in the second of its acknowledgement; the others in their intended one.
WITH events AS (
    SELECT second // $bin_s AS point, 1 AS offered, 0 AS done,
        (outcome IN ('failed', 'unacknowledged'))::INTEGER AS failed,
        (outcome = 'missed')::INTEGER AS missed
    FROM edit_outcomes
    UNION ALL
    SELECT floor(acknowledged_s)::INTEGER // $bin_s, 0, 1, 0, 0
    FROM edit_outcomes WHERE outcome = 'acknowledged'
),
sums AS (
    SELECT point, sum(offered) AS offered, sum(done) AS done,
        sum(failed) AS failed, sum(missed) AS missed
    FROM events GROUP BY point
)
SELECT
    p.at_s,
    coalesce(s.offered, 0) / $bin_s AS offered, coalesce(s.done, 0) / $bin_s AS done,
    coalesce(s.failed, 0) / $bin_s AS failed, coalesce(s.missed, 0) / $bin_s AS missed
FROM chart_points($bin_s) p LEFT JOIN sums s USING (point)
ORDER BY p.at_s;
