-- How many samples of each kind count, and how many there are in all attempts.
SELECT 'edits' AS kind, (SELECT count(*) FROM edits) AS samples, (SELECT count(*) FROM all_edits) AS in_all
UNION ALL SELECT 'deliveries', (SELECT count(*) FROM deliveries), (SELECT count(*) FROM all_deliveries)
UNION ALL SELECT 'connections', (SELECT count(*) FROM connections), (SELECT count(*) FROM all_connections)
UNION ALL SELECT 'resources', (SELECT count(*) FROM resources), (SELECT count(*) FROM all_resources)
UNION ALL SELECT 'relay', (SELECT count(*) FROM relay), (SELECT count(*) FROM all_relay)
UNION ALL SELECT 'errors', (SELECT count(*) FROM errors), (SELECT count(*) FROM all_errors)
UNION ALL SELECT 'replicas', (SELECT count(*) FROM replicas), (SELECT count(*) FROM all_replicas);
