-- How many connections dropped and had not synced again by the end of the samples.
SELECT count(DISTINCT (attempt, worker, connection)) AS connections
FROM recoveries WHERE NOT recovered;
