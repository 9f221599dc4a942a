-- Workers that stopped answering: in which phase, when last heard and noticed (run time), and how
-- many connections went with each.
SELECT l.worker, l.phase, l.connections, l.reason, l.replaced_by, l.replaced_from,
    (l.last_seen_us - r.origin_us) / 1e6 AS last_seen_s,
    (l.noticed_us - r.origin_us) / 1e6 AS noticed_s,
    greatest(p.connections_start, p.connections_end) AS planned
FROM lost_workers l, run r, phases p WHERE p.label = l.phase
ORDER BY l.noticed_us, l.worker;
