-- How late edits began, by the generator's own fault, in each phase and each of its workers: the
-- 99th percentile, and how many edits it rests on. `judged`: the phase is sustained or stress.
SELECT e.phase, e.worker, any_value(p.judged) AS judged,
    any_value(p.from_s) AS from_s, any_value(p.to_s) AS to_s,
    count(e.lateness_ms) AS edits, quantile_cont(e.lateness_ms, 0.99) AS p99_ms,
    max(e.lateness_ms) AS max_ms
FROM edit_outcomes e JOIN phases p ON p.label = e.phase
GROUP BY GROUPING SETS ((e.phase), (e.phase, e.worker))
ORDER BY e.phase, e.worker NULLS FIRST;
