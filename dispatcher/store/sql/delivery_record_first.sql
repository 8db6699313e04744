-- Records deliveries whose first attempt ended them and left neither a response nor an error text, in one statement: the
-- usual result. delivery_record.sql records the others, in a transaction with copied rows.
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); results, one element each: $3 shard, $4 delivery id, $5 day,
--   $6 event id, $7 number of the endpoint, $8 code of the event type, $9 schedule position, $10 trigger, $11 outcome
--   (codes), $12 attempted at, $13 latency, $14 dns, $15 connect, $16 wait, $17 read (seconds), $18 reused, $19 peer,
--   $20 revision of the endpoint, $21 response code.
-- Returns the ids that it did not record, and whether they were fenced. The others are recorded already, or their
-- delivery ended otherwise meanwhile or carries warnings: delivery_record.sql decides. The state is succeeded (3).
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Why the subqueries are no joins: see delivery_record.sql.
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, NOT r.shard IN (SELECT f.shard FROM fence AS f) AS fenced
    FROM unnest($3::smallint[], $4::uuid[], $5::date[], $6::text[], $7::integer[], $8::integer[], $9::integer[],
                $10::smallint[], $11::smallint[], $12::timestamptz[], $13::real[], $14::real[], $15::real[], $16::real[],
                $17::real[], $18::boolean[], $19::text[], $20::integer[], $21::smallint[])
        AS r (shard, delivery_id, day, event_id, endpoint_no, event_type_code, schedule_position, trigger, outcome,
              attempted_at, latency, dns, connect, wait, read, reused, peer, revision, response_code)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    WHERE o.id = ANY ($4) AND o.attempt_count = 0 AND o.warnings IS NULL
      AND (o.id IN (SELECT g.delivery_id FROM given AS g WHERE NOT g.fenced)) IS TRUE
    RETURNING o.id
), done AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position, trigger, outcome,
         attempted_at, latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision,
         response_code)
    SELECT g.delivery_id, g.day, g.event_id, g.endpoint_no, g.event_type_code, 3, 1, g.schedule_position,
           g.trigger, g.outcome, g.attempted_at, g.latency, g.dns, g.connect, g.wait, g.read, g.reused, g.peer, g.revision,
           g.response_code
    FROM given AS g
    WHERE (g.delivery_id IN (SELECT id FROM ended)) IS TRUE
)
SELECT given.delivery_id, given.fenced
FROM given
WHERE given.delivery_id NOT IN (SELECT id FROM ended)
