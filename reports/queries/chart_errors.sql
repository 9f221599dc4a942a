-- Which errors came when? The most frequent types each, all others together.
WITH kinds AS (
    SELECT type, row_number() OVER (ORDER BY sum(coalesce(weight, 1)) DESC, type) AS rank
    FROM errors GROUP BY type
)
SELECT
    floor(e.at_s)::INTEGER // $bin_s AS point,
    if(k.rank <= $types, k.type, 'all others') AS type,
    min(k.rank) AS rank,
    sum(coalesce(e.weight, 1)) / $bin_s AS per_second
FROM errors e JOIN kinds k USING (type)
GROUP BY ALL
ORDER BY rank, point;
