-- How long each delivery took. Within a worker both instants are of one clock. Between workers
-- each is put on the relay's clock by its worker's offset in that minute (or its median), to
-- the microsecond, and `error_ms` bounds what is left. A delivery's second is that of its edit's intended time within
-- a worker, and that of its being seen between workers.
CREATE TABLE delivery_latencies AS
WITH between_workers AS (
    SELECT d.*, e.worker AS writer_worker
    FROM deliveries d LEFT JOIN all_edits e ON e.attempt = d.attempt AND e.edit = d.edit
    WHERE NOT d.same_worker
),
corrected AS (
    SELECT b.*,
        (1000 * (coalesce(mo.offset_ms, co.offset_ms, 0)
            - coalesce(mw.offset_ms, cw.offset_ms, 0)))::BIGINT AS apart_us,
        coalesce(mo.error_ms, co.error_ms) + coalesce(mw.error_ms, cw.error_ms) AS error_ms
    FROM between_workers b
    LEFT JOIN clock_minutes mo
        ON mo.attempt = b.attempt AND mo.worker = b.worker AND mo.minute = b.seen_us // 60000000
    LEFT JOIN clock_minutes mw
        ON mw.attempt = b.attempt AND mw.worker = b.writer_worker
        AND mw.minute = b.intended_us // 60000000
    LEFT JOIN clocks co ON co.attempt = b.attempt AND co.worker = b.worker
    LEFT JOIN clocks cw ON cw.attempt = b.attempt AND cw.worker = b.writer_worker
)
SELECT
    attempt, phase, worker, edit, document, generation, writer, observer, same_worker, repeat,
    weight,
    floor(at_s)::INTEGER AS seen_second,
    at_s - (seen_us - intended_us) / 1e6 AS at_s,
    floor(at_s - (seen_us - intended_us) / 1e6)::INTEGER AS second,
    (seen_us - intended_us) / 1000.0 AS response_ms,
    (seen_us - sent_us) / 1000.0 AS service_ms,
    0.0 AS error_ms
FROM deliveries WHERE same_worker
UNION ALL
SELECT
    attempt, phase, worker, edit, document, generation, writer, observer, same_worker, repeat,
    weight,
    floor(at_s)::INTEGER,
    at_s,
    floor(at_s)::INTEGER,
    (seen_us - intended_us - apart_us) / 1000.0,
    (seen_us - sent_us - apart_us) / 1000.0,
    error_ms
FROM corrected;
