-- How many of the expected deliveries of each edit were seen; every row stands for one.
CREATE VIEW delivered_weights AS
SELECT attempt, edit, (expected - undelivered)::DOUBLE AS weight FROM edit_deliveries;
