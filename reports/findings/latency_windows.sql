-- Median and 95th percentile of a latency, from pooled samples, in every window of $width_s
-- seconds of a phase that begins $step_s after the one before it (within 2 %).
WITH cells AS (
    SELECT second, cell, weight FROM latency_cells WHERE metric = $metric AND phase = $phase
),
spans AS (SELECT min(second) AS first_s, max(second) AS last_s FROM cells),
-- Each cell goes to every window that holds its second.
summed AS (
    SELECT (c.second - o.range)::INTEGER AS start, c.cell, sum(c.weight) AS weight
    FROM cells c, spans s, range($width_s) o
    WHERE c.second - o.range BETWEEN s.first_s AND s.last_s - $width_s + 1
        AND (c.second - o.range - s.first_s) % $step_s = 0
    GROUP BY ALL
),
ranked AS (
    SELECT start, cell,
        sum(weight) OVER (PARTITION BY start ORDER BY cell) AS upto,
        sum(weight) OVER (PARTITION BY start) AS total
    FROM summed
)
SELECT
    start AS start_s, any_value(total) AS count,
    pow(1.02, min(cell + 0.5) FILTER (WHERE upto >= 0.5 * total)) AS p50,
    pow(1.02, min(cell + 0.5) FILTER (WHERE upto >= 0.95 * total)) AS p95
FROM ranked GROUP BY start ORDER BY start;
