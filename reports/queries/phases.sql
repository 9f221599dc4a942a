-- The run's phases in order: when each was (run time in seconds, and clock time in us), in which
-- attempt, what it planned, and whether it is complete.
SELECT * FROM phases ORDER BY index, started_us, label;
