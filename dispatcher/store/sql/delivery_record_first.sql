-- Records deliveries whose first attempt ended them and left neither a response nor an error text, in one statement: the
-- usual result. delivery_record.sql records the others, in a transaction with copied rows.
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); $3 results (dispatcher.first_success; trigger and outcome are
--   codes).
-- Returns the ids that it did not record, and whether they were fenced. The others are recorded already, or their
-- delivery ended otherwise meanwhile or carries warnings: delivery_record.sql decides. The state is succeeded (3).
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Why the subqueries are no joins: see delivery_record.sql.
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE s.shard = ANY ($1) AND s.token = ($2::bigint[])[array_position($1::smallint[], s.shard)]
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, NOT r.shard IN (SELECT f.shard FROM fence AS f) AS fenced
    FROM unnest($3::dispatcher.first_success[]) AS r
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    WHERE o.id = ANY (ARRAY(SELECT g.delivery_id FROM given AS g WHERE NOT g.fenced))
      AND o.attempt_count = 0 AND o.warnings IS NULL
    RETURNING o.id
), done AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position, trigger, outcome,
         attempted_at, latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision,
         response_code)
    SELECT g.delivery_id, g.day, g.event_id, g.endpoint_no, g.event_type_code, 3, 1, g.schedule_position, g.trigger,
           g.outcome, g.attempted_at, g.latency_seconds, g.dns_seconds, g.connect_seconds, g.wait_seconds, g.read_seconds,
           g.reused, g.peer, g.revision, g.response_code
    FROM given AS g
    WHERE (g.delivery_id IN (SELECT id FROM ended)) IS TRUE
)
SELECT given.delivery_id, given.fenced
FROM given
WHERE given.delivery_id NOT IN (SELECT id FROM ended)
