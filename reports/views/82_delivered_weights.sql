-- How many of the expected deliveries of each edit were seen, by weight; every row stands for one.
CREATE VIEW delivered_weights AS
SELECT attempt, edit, delivered::DOUBLE AS weight FROM edit_deliveries;
