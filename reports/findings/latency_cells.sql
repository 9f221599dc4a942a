-- How many deliveries and acknowledgements of each second took how long, in cells 2 % wide: what
-- windows of any width are made of without reading the samples again. `metric` is `delivery_ms`
-- or `acknowledgement_ms`; `edits` counts distinct ones, for deliveries of one edit go together.
CREATE OR REPLACE TEMP TABLE latency_cells AS
SELECT metric, phase, second, cell, sum(weight) AS weight
FROM (
    SELECT 'delivery_ms' AS metric, phase, second, weight,
        floor(ln(greatest(response_ms, 0.05)) / ln(1.02))::INTEGER AS cell
    FROM delivery_latencies WHERE same_worker AND repeat = 1
    UNION ALL
    SELECT 'acknowledgement_ms', phase, second, 1.0,
        floor(ln(greatest(response_ms, 0.05)) / ln(1.02))::INTEGER
    FROM edit_outcomes WHERE outcome = 'acknowledged'
)
GROUP BY ALL;
