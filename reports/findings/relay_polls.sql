-- Every poll of the relay in order of time, with what shows that it is another process than before.
SELECT
    at_s, phase, error, uptime_s, pid,
    lag(uptime_s IGNORE NULLS) OVER polls AS uptime_before_s,
    lag(pid IGNORE NULLS) OVER polls AS pid_before,
    lag(CASE WHEN error IS NULL THEN at_s END IGNORE NULLS) OVER polls AS at_before_s
FROM relay
WINDOW polls AS (ORDER BY at_us)
ORDER BY at_us;
