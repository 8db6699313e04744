-- Moves deliveries on by their attempts' results, under the token that each shard has now; the attempts' own rows are
-- copied in by the same transaction (store/deliveries.py).
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); results, one element each: $3 shard, $4 delivery id,
--   $5 attempt number, $6 new state, $7 reason, $8 schedule position,
--   $9 seconds from now to the next attempt (NULL: the due time stays).
-- Returns the ids that it did not move, and whether they were fenced; the others are recorded already, or their
-- delivery ended otherwise meanwhile (results_record_late.sql).
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Due times are made here, by the database's clock. Sent again after an unknown commit it changes nothing: a row
-- moves only from the attempt before. Attempts in 18 more arrays cost half as much again as COPY (docs/adr/0005).
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, f.shard IS NULL AS fenced
    FROM unnest($3::smallint[], $4::text[], $5::integer[], $6::text[], $7::text[], $8::integer[], $9::float8[])
        AS r (shard, delivery_id, attempt_number, state, reason, schedule_position, due_in_seconds)
    LEFT JOIN fence AS f USING (shard)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    USING given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('succeeded', 'failed') AND NOT g.fenced
    RETURNING o.id, o.day, o.event_id, o.endpoint_id, o.event_type, o.tenant, o.profile, g.state, g.reason,
              g.attempt_number, g.schedule_position, o.created_at, o.warnings
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_number,
           schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
), waiting AS (
    UPDATE dispatcher.delivery_open AS o
    SET state = g.state, attempt_count = g.attempt_number, schedule_position = g.schedule_position,
        next_attempt_at = coalesce(clock_timestamp() + make_interval(secs => g.due_in_seconds), o.next_attempt_at)
    FROM given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('pending', 'retrying') AND NOT g.fenced
    RETURNING o.id
), moved AS (
    SELECT id FROM ended UNION ALL SELECT id FROM waiting
)
SELECT delivery_id, fenced FROM given WHERE NOT EXISTS (SELECT FROM moved WHERE moved.id = given.delivery_id)
