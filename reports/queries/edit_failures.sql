-- Why edits failed: each type of failure, and how many edits it took.
SELECT
    coalesce(error, 'unacknowledged') AS type, count(*) AS edits,
    min(at_s) AS first_s, max(at_s) AS last_s
FROM edit_outcomes
WHERE outcome IN ('failed', 'unacknowledged')
GROUP BY ALL
ORDER BY edits DESC, type;
