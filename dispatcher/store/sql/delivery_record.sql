-- Moves deliveries on by the results of their attempts, under the token that each shard has now. The rows of ended
-- deliveries and of attempts are copied in by the same transaction (store/deliveries.py), which has all their columns
-- in memory.
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); results, one element each: $3 shard, $4 delivery id,
--   $5 attempt number, $6 whether it ends the delivery, $7 schedule position,
--   $8 seconds from now to the next attempt (NULL: the due time stays).
-- Returns the ids that it did not move, and whether they were fenced; the others are recorded already, or their
-- delivery ended otherwise meanwhile (delivery_record_late.sql). Also those that it ended and that carry warnings.
-- `o.id = ANY ($4)` repeats the join's condition: a plan that was cached while the table was nearly empty would
-- otherwise read the whole table, and compare each of its rows with each result, until the next ANALYZE.
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Due times are made here, by the database's clock. Sent again after an unknown commit it changes nothing: a row
-- moves only from the attempt before.
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, f.shard IS NULL AS fenced
    FROM unnest($3::smallint[], $4::uuid[], $5::integer[], $6::boolean[], $7::integer[], $8::float8[])
        AS r (shard, delivery_id, attempt_number, ends, schedule_position, due_in_seconds)
    LEFT JOIN fence AS f USING (shard)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    USING given AS g
    WHERE o.id = ANY ($4) AND o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1 AND g.ends AND NOT g.fenced
    RETURNING o.id, o.warnings
), waiting AS (
    UPDATE dispatcher.delivery_open AS o
    SET attempt_count = g.attempt_number, schedule_position = g.schedule_position,
        next_attempt_at = coalesce(clock_timestamp() + make_interval(secs => g.due_in_seconds), o.next_attempt_at)
    FROM given AS g
    WHERE o.id = ANY ($4) AND o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1 AND NOT g.ends AND NOT g.fenced
    RETURNING o.id, NULL::text[] AS warnings
), moved AS (
    SELECT * FROM ended UNION ALL SELECT * FROM waiting
)
SELECT given.delivery_id, given.fenced, moved.id IS NOT NULL AS is_moved, moved.warnings
FROM given LEFT JOIN moved ON moved.id = given.delivery_id
WHERE moved.id IS NULL OR moved.warnings IS NOT NULL
