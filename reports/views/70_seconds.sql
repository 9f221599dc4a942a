-- Every second of the run's phases, and of gaps of up to a minute between them (a retry may come
-- hours after the attempt before it). `phase` is null in a gap.
CREATE TABLE run_seconds AS
WITH gapped AS (
    SELECT label, from_s, to_s, lead(from_s) OVER (ORDER BY from_s) AS next_s
    FROM phases WHERE from_s IS NOT NULL AND to_s IS NOT NULL
),
spans AS (
    SELECT label, from_s, CASE WHEN next_s - to_s BETWEEN 0 AND 60 THEN next_s ELSE to_s END AS to_s
    FROM gapped
),
seconds AS (
    SELECT DISTINCT unnest(range(floor(from_s)::BIGINT, ceil(to_s)::BIGINT))::INTEGER AS second
    FROM spans
)
SELECT s.second, max(p.label) AS phase
FROM seconds s LEFT JOIN phases p ON p.from_s < s.second + 1 AND p.to_s > s.second
    -- A second that two phases share belongs to the one that holds its middle.
    AND p.from_s <= s.second + 0.5 AND p.to_s > s.second + 0.5
GROUP BY s.second
ORDER BY s.second;

-- Each worker's last row of resources in each second, or of the two seconds before it: a worker
-- samples itself once a second, so a second may by chance hold none.
CREATE TABLE worker_seconds AS
WITH latest AS (
    SELECT worker, floor(at_s)::INTEGER AS second, arg_max(r, at_us) AS r
    FROM resources r GROUP BY ALL
),
wanted AS (SELECT s.second, s.phase, w.worker FROM run_seconds s, (SELECT DISTINCT worker FROM latest) w)
SELECT
    w.second, w.phase, w.worker,
    l.r.cpu_percent, l.r.agent_cpu_percent, l.r.browser_cpu_percent,
    l.r.rss_mb, l.r.browser_pss_mb, l.r.js_heap_mb, l.r.loop_lag_ms, l.r.page_lag_ms,
    l.r.connections_target, l.r.connections_open, l.r.connections_synced,
    l.r.connections_healthy, l.r.sockets_attempted, l.r.edits_pending,
    l.r.clock_offset_ms, l.r.clock_error_ms, l.r.disk_free_mb
FROM wanted w ASOF JOIN latest l ON w.worker = l.worker AND w.second >= l.second
WHERE w.second - l.second <= 2
ORDER BY w.second, w.worker;

-- The fleet in each second: sums over the workers that were sampled. Where a phase holds its
-- connections constant the target is the plan's: a lost worker takes its own target with it.
CREATE TABLE fleet_seconds AS
SELECT
    second, any_value(w.phase) AS phase, count(*) AS workers,
    greatest(
        sum(connections_target),
        max(CASE WHEN p.connections_start = p.connections_end AND p.kind <> 'stress'
            THEN p.connections_end END)
    )::INTEGER AS connections_target,
    sum(connections_open)::INTEGER AS connections_open,
    sum(connections_synced)::INTEGER AS connections_synced,
    sum(connections_healthy)::INTEGER AS connections_healthy,
    sum(sockets_attempted)::INTEGER AS sockets_attempted,
    sum(edits_pending)::INTEGER AS edits_pending,
    max(cpu_percent) AS cpu_percent_max,
    sum(rss_mb) AS agent_memory_mb,
    sum(browser_pss_mb) AS browser_memory_mb,
    sum(js_heap_mb) AS js_heap_mb,
    max(loop_lag_ms) AS loop_lag_max_ms,
    max(page_lag_ms) AS page_lag_max_ms
FROM worker_seconds w LEFT JOIN phases p ON p.label = w.phase
GROUP BY second ORDER BY second;

-- The relay in each second: its last answer, and the polls of that second that failed.
CREATE TABLE relay_seconds AS
SELECT
    floor(at_s)::INTEGER AS second,
    count(*) AS polls,
    count(*) FILTER (WHERE error IS NOT NULL) AS polls_failed,
    arg_max(connections, at_us) FILTER (WHERE connections IS NOT NULL) AS relay_connections,
    arg_max(memory_rss_mb, at_us) FILTER (WHERE memory_rss_mb IS NOT NULL) AS relay_memory_mb,
    arg_max(memory_total_mb, at_us) FILTER (WHERE memory_total_mb IS NOT NULL)
        AS relay_memory_total_mb,
    arg_max(uptime_s, at_us) FILTER (WHERE uptime_s IS NOT NULL) AS relay_uptime_s,
    arg_max(cpu_seconds, at_us) FILTER (WHERE cpu_seconds IS NOT NULL) AS relay_cpu_seconds,
    max(response_ms) AS relay_response_ms
FROM relay GROUP BY second ORDER BY second;
