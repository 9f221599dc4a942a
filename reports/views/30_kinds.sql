-- The samples that count: of each phase, the attempt in which it was completed (or the latest).
-- `at_s` is run time: seconds since the run's first phase began, on the orchestrator's clock.
CREATE VIEW counted AS
SELECT label AS phase, attempt, origin_us FROM phases, run;

CREATE VIEW edits AS
SELECT e.*, (intended_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_edits e JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);

CREATE VIEW connections AS
SELECT c.*, (at_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_connections c JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);

CREATE VIEW resources AS
SELECT r.*, (at_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_resources r JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);

CREATE VIEW relay AS
SELECT r.*, (at_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_relay r JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);

CREATE VIEW errors AS
SELECT e.*, (at_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_errors e JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);

CREATE VIEW replicas AS
SELECT r.*, (at_us - coalesce(shift_us, 0) - origin_us) / 1e6 AS at_s
FROM all_replicas r JOIN counted USING (phase, attempt) LEFT JOIN clocks USING (attempt, worker);
