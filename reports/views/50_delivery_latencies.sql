-- How long each delivery took. Within a worker both instants are of one clock. Between workers
-- each is put on the relay's clock by its worker's offset in that minute (or its median), and
-- `error_ms` bounds what is left. A delivery's second is that of its edit's intended time within
-- a worker, and that of its being seen between workers.
CREATE TABLE delivery_latencies AS
SELECT
    d.attempt, d.phase, d.worker, d.edit, d.document, d.generation, d.writer, d.observer,
    d.same_worker, d.repeat, d.weight,
    floor(d.at_s)::INTEGER AS seen_second,
    d.at_s - if(d.same_worker, (d.seen_us - d.intended_us) / 1e6, 0) AS at_s,
    floor(d.at_s - if(d.same_worker, (d.seen_us - d.intended_us) / 1e6, 0))::INTEGER AS second,
    (d.seen_us - d.intended_us) / 1000.0
        - if(d.same_worker, 0,
            coalesce(mo.offset_ms, co.offset_ms, 0) - coalesce(mw.offset_ms, cw.offset_ms, 0))
        AS response_ms,
    (d.seen_us - d.sent_us) / 1000.0
        - if(d.same_worker, 0,
            coalesce(mo.offset_ms, co.offset_ms, 0) - coalesce(mw.offset_ms, cw.offset_ms, 0))
        AS service_ms,
    if(d.same_worker, 0,
        coalesce(mo.error_ms, co.error_ms) + coalesce(mw.error_ms, cw.error_ms)) AS error_ms
FROM deliveries d
LEFT JOIN all_edits e ON NOT d.same_worker AND e.attempt = d.attempt AND e.edit = d.edit
LEFT JOIN clock_minutes mo
    ON mo.attempt = d.attempt AND mo.worker = d.worker AND mo.minute = d.seen_us // 60000000
LEFT JOIN clock_minutes mw
    ON mw.attempt = d.attempt AND mw.worker = e.worker AND mw.minute = d.intended_us // 60000000
LEFT JOIN clocks co ON co.attempt = d.attempt AND co.worker = d.worker
LEFT JOIN clocks cw ON cw.attempt = d.attempt AND cw.worker = e.worker;
