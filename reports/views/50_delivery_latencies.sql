-- The deliveries that count.
CREATE VIEW deliveries AS
SELECT * EXCLUDE (counts, seen_at_us, apart_us, error_us), seen_at_us / 1e6 AS at_s
FROM all_deliveries WHERE counts;

-- How long each delivery took. Within a worker both instants are of one clock; between workers
-- they are brought together to the microsecond, and `error_ms` bounds the error of that. A
-- delivery's second, and `at_s`, is that of its edit's intended time within a worker, and that of
-- its being seen between workers.
CREATE VIEW delivery_latencies AS
SELECT
    attempt, phase, worker, edit, document, generation, writer, observer, same_worker, repeat,
    weight,
    floor(seen_at_us / 1e6)::INTEGER AS seen_second,
    (seen_at_us - if(same_worker, seen_us - intended_us, 0)) / 1e6 AS at_s,
    floor((seen_at_us - if(same_worker, seen_us - intended_us, 0)) / 1e6)::INTEGER AS second,
    (seen_us - intended_us - apart_us) / 1000.0 AS response_ms,
    (seen_us - sent_us - apart_us) / 1000.0 AS service_ms,
    error_us / 1000.0 AS error_ms
FROM all_deliveries WHERE counts;
