-- How many edits of each second of a phase there were, and how many of them took more than $ratio
-- times the phase's median, or than a line of logarithms through it that rises by $slope a second.
WITH flat AS (
    SELECT second, log_ms - $slope * second AS log_ms
    FROM edit_latencies WHERE metric = $metric AND phase = $phase
),
usual AS (SELECT median(log_ms) AS log_ms FROM flat)
SELECT f.second, count(*) AS edits, count(*) FILTER (WHERE f.log_ms > u.log_ms + ln($ratio)) AS slow
FROM flat f, usual u GROUP BY f.second ORDER BY f.second;
