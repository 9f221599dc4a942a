-- One latency ($metric) in every window of $length_s seconds between $from_s and $to_s, in one
-- phase ($phase) or, if that is null, in the run: for objectives that say `for`.
SELECT * FROM distribution_by_window(
    $metric, $phase, $from_s,
    greatest(floor($to_s - $from_s)::INTEGER - $length_s::INTEGER, 0), $length_s::INTEGER)
ORDER BY from_s;
