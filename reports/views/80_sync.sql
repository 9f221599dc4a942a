-- When each connection's replica of a document was in sync, on the orchestrator's clock: from
-- `synced` until the connection ended, or its worker was last sampled.
CREATE TABLE sync_spans AS
WITH events AS (
    SELECT attempt, worker, connection, document, generation, event,
        at_us - coalesce(shift_us, 0) AS at_us
    FROM all_connections LEFT JOIN clocks USING (attempt, worker)
    WHERE attempt IN (SELECT attempt FROM phases)
),
ends AS (
    SELECT attempt, worker, connection, at_us FROM events WHERE event IN ('dropped', 'closed')
),
begins AS (
    SELECT attempt, worker, connection, document, generation, at_us AS from_us
    FROM events WHERE event = 'synced'
),
last_seen AS (
    SELECT attempt, worker, max(at_us - coalesce(shift_us, 0)) AS at_us
    FROM all_resources LEFT JOIN clocks USING (attempt, worker) GROUP BY ALL
),
spans AS (
    SELECT b.*, coalesce(e.at_us, l.at_us, 9000000000000000000) AS to_us
    FROM begins b
    ASOF LEFT JOIN ends e
        ON e.attempt = b.attempt AND e.worker = b.worker AND e.connection = b.connection
        AND e.at_us >= b.from_us
    LEFT JOIN last_seen l ON l.attempt = b.attempt AND l.worker = b.worker
)
SELECT attempt, worker, connection, document, generation, to_us, min(from_us) AS from_us
FROM spans GROUP BY ALL;

-- The last look at each replica. It is diverged unless it was in sync and showed what most
-- replicas of its document showed.
CREATE TABLE replica_states AS
WITH last AS (
    SELECT attempt, phase, worker, connection, document, generation, at_us, in_sync, heads, edits,
        missing, changed_us - coalesce(shift_us, 0) AS changed_us, at_s
    FROM replicas LEFT JOIN clocks USING (attempt, worker)
    QUALIFY row_number() OVER (
        PARTITION BY attempt, connection, document, generation ORDER BY at_us DESC) = 1
),
common AS (
    SELECT attempt, document, generation, arg_max(heads, votes) AS heads
    FROM (
        SELECT attempt, document, generation, heads, (count(*), max(edits)) AS votes
        FROM last WHERE heads IS NOT NULL GROUP BY attempt, document, generation, heads
    ) GROUP BY ALL
)
SELECT l.*, NOT (coalesce(l.in_sync, false) AND l.heads IS NOT DISTINCT FROM c.heads) AS diverged
FROM last l LEFT JOIN common c USING (attempt, document, generation);

-- Every delivery that there should be: acknowledged edits by other connections whose replica was
-- in sync 0.1 s before the edit was made, and stayed until 5 s after it was acknowledged.
CREATE VIEW expected_pairs AS
WITH made AS (
    SELECT e.attempt, e.edit, e.document, e.generation, e.connection,
        e.started_us - coalesce(c.shift_us, 0) AS started_us,
        e.acknowledged_us - coalesce(c.shift_us, 0) AS acknowledged_us
    FROM edit_outcomes e LEFT JOIN clocks c USING (attempt, worker)
    WHERE e.outcome = 'acknowledged'
)
SELECT m.attempt, m.edit, s.connection AS observer, s.worker, m.document, m.generation
FROM made m JOIN sync_spans s
    ON s.attempt = m.attempt AND s.document = m.document AND s.generation = m.generation
WHERE s.from_us <= m.started_us - 100000 AND s.to_us >= m.acknowledged_us + 5000000
    AND s.connection <> m.connection;

-- Workers that recorded only a sample of the deliveries: what they did not record may have come.
CREATE TABLE thinned_workers AS
SELECT DISTINCT attempt, worker FROM delivery_latencies WHERE weight <> 1;

-- Expected deliveries that did not come. There are as many pairs as deliveries, so only edits
-- whose observers are not exactly those expected are compared one by one: sums of hashes differ
-- where sets do.
CREATE TABLE undelivered_pairs AS
WITH expected AS (
    SELECT attempt, edit, count(*) AS n, sum(hash(observer)::HUGEINT) AS observers
    FROM expected_pairs ANTI JOIN thinned_workers USING (attempt, worker) GROUP BY ALL
),
shown AS (
    SELECT attempt, edit, count(*) AS n, sum(hash(observer)::HUGEINT) AS observers
    FROM delivery_latencies ANTI JOIN thinned_workers USING (attempt, worker)
    WHERE repeat = 1 GROUP BY ALL
),
different AS (
    SELECT e.attempt, e.edit FROM expected e LEFT JOIN shown s USING (attempt, edit)
    WHERE (e.n, e.observers) IS DISTINCT FROM (s.n, s.observers)
)
SELECT p.*
FROM expected_pairs p
SEMI JOIN different USING (attempt, edit)
ANTI JOIN thinned_workers USING (attempt, worker)
ANTI JOIN (
    SELECT attempt, edit, observer
    FROM delivery_latencies SEMI JOIN different USING (attempt, edit) WHERE repeat = 1
) d USING (attempt, edit, observer);

-- For each acknowledged edit: how many other connections should have shown it, how many of these
-- at workers that recorded a sample only, how many did not show it, and how many of those are not
-- overruled by a later look at the replica (`unseen`).
CREATE TABLE edit_deliveries AS
WITH expected AS (
    SELECT p.attempt, p.edit, count(*) AS n, count(t.worker) AS sampled
    FROM expected_pairs p LEFT JOIN thinned_workers t USING (attempt, worker) GROUP BY ALL
),
missed AS (
    SELECT u.attempt, u.edit, count(*) AS n,
        count(*) FILTER (WHERE x.connection IS NULL) AS unseen
    FROM undelivered_pairs u
    LEFT JOIN replica_states x
        ON x.attempt = u.attempt AND x.connection = u.observer AND x.document = u.document
        AND x.generation = u.generation
    GROUP BY ALL
)
SELECT e.attempt, e.edit, e.n AS expected, e.sampled, coalesce(m.n, 0) AS undelivered,
    coalesce(m.unseen, 0) AS unseen
FROM expected e LEFT JOIN missed m USING (attempt, edit);

-- Acknowledged edits that some replica does not show: at the last look at it, or, where there was
-- none, because no delivery was seen that should have been.
CREATE VIEW lost_edits AS
WITH missing AS (
    SELECT attempt, unnest(missing) AS edit FROM replica_states
),
lost AS (
    SELECT attempt, edit FROM missing
    UNION
    SELECT attempt, edit FROM edit_deliveries WHERE unseen > 0
)
SELECT e.attempt, e.phase, e.worker, e.edit, e.document, e.generation, e.connection, e.at_s
FROM edit_outcomes e SEMI JOIN lost USING (attempt, edit)
WHERE e.outcome = 'acknowledged';
