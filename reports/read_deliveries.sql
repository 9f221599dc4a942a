-- Reads parts of deliveries ($files) into all_deliveries, which the files of views up to 40 come
-- before. There are up to tens of millions, so they are written once, in whole microseconds, with
-- what views need of other tables:
-- `counts`: the phase's attempt is the one that counts; `seen_at_us`: run time of being seen;
-- `apart_us`: by how much the observer's clock is before the writer's, to the relay's clock by
-- their workers' offsets in that minute (or their medians); `error_us`: the bound of that's error.
-- Both are 0 within a worker.
INSERT INTO all_deliveries BY NAME
SELECT
    d.edit, d.document, d.generation, d.writer, d.observer, d.intended_us, d.sent_us, d.seen_us,
    d.same_worker, d.repeat, d.weight, d.attempt, d.phase, d.worker,
    c.phase IS NOT NULL AS counts,
    d.seen_us - coalesce(co.shift_us, 0) - r.origin_us AS seen_at_us,
    CASE WHEN d.same_worker THEN 0 ELSE
        1000 * (coalesce(mo.offset_ms, co.offset_ms, 0) - coalesce(mw.offset_ms, cw.offset_ms, 0))
    END::BIGINT AS apart_us,
    CASE WHEN d.same_worker THEN 0 ELSE
        1000 * (coalesce(mo.error_ms, co.error_ms) + coalesce(mw.error_ms, cw.error_ms))
    END::BIGINT AS error_us
FROM parts_of($files) d
CROSS JOIN run r
LEFT JOIN counted c ON c.phase = d.phase AND c.attempt = d.attempt
LEFT JOIN edit_workers e ON e.attempt = d.attempt AND e.edit = d.edit
LEFT JOIN clock_minutes mo
    ON mo.attempt = d.attempt AND mo.worker = d.worker AND mo.minute = d.seen_us // 60000000
LEFT JOIN clock_minutes mw
    ON mw.attempt = d.attempt AND mw.worker = e.worker AND mw.minute = d.intended_us // 60000000
LEFT JOIN clocks co ON co.attempt = d.attempt AND co.worker = d.worker
LEFT JOIN clocks cw ON cw.attempt = d.attempt AND cw.worker = e.worker;
