-- What were the latencies of each second of the judged phases, by the second in which the edit was
-- meant to begin? Two runs are compared by these. Null is a second without samples.
SELECT
    p.name AS phase, p.kind, s.second, s.second - p.from_s AS at_s,
    ack.p50 AS acknowledgement_p50_ms, ack.p95 AS acknowledgement_p95_ms,
    seen.p50 AS delivery_p50_ms, seen.p95 AS delivery_p95_ms
FROM run_seconds s
JOIN phases p ON p.label = s.phase AND p.judged
LEFT JOIN distribution_by_second('acknowledgement_ms') ack USING (second)
LEFT JOIN distribution_by_second('delivery_ms') seen USING (second)
ORDER BY s.second;
