-- Workers that the orchestrator gave up: when last heard and noticed, in run time.
SELECT l.worker, l.phase, l.connections, l.reason, l.replaced_by, l.replaced_from,
    (l.last_seen_us - r.origin_us) / 1e6 AS last_seen_s,
    (l.noticed_us - r.origin_us) / 1e6 AS noticed_s,
    (SELECT max(to_s) FROM phases) AS run_ends_s,
    (SELECT min(from_s) FROM phases p WHERE p.label = l.replaced_from) AS replaced_s
FROM lost_workers l, run r ORDER BY last_seen_s, l.worker;
