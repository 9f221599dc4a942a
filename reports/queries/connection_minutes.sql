-- How long were connections open, all together, in minutes? A second without samples counts none.
SELECT coalesce(sum(connections_open), 0) / 60.0 AS connection_minutes FROM fleet_seconds;
