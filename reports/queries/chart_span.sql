-- How long is the run, in seconds that the charts show, and how many workers and types of error?
SELECT
    (SELECT count(*) FROM run_seconds) AS seconds,
    (SELECT coalesce(max(second) + 1, 0) FROM run_seconds) AS last_s,
    (SELECT count(DISTINCT worker) FROM worker_seconds) AS workers,
    (SELECT count(DISTINCT type) FROM errors) AS types;
