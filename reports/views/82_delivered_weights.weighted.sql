-- How many of the expected deliveries of each edit were seen, by weight: an estimate, since some
-- rows stand for several deliveries and others were left out.
CREATE TABLE delivered_weights AS
SELECT d.attempt, d.edit, sum(d.weight) AS weight
FROM delivery_latencies d SEMI JOIN expected_pairs p USING (attempt, edit, observer)
WHERE d.repeat = 1 GROUP BY ALL;
