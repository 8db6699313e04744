-- Moves deliveries on by the results of their attempts, under the token that each shard has now. The rows of ended
-- deliveries and of attempts are copied in by the same transaction (store/results.py), which has all their columns
-- in memory.
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); results, one element each: $3 shard, $4 delivery id,
--   $5 attempt number, $6 whether it ends the delivery, $7 schedule position,
--   $8 seconds from now to the next attempt (NULL: the due time stays).
-- Returns the ids that it did not move, and whether they were fenced; the others are recorded already, or their
-- delivery ended otherwise meanwhile (delivery_record_late.sql). Also those that it ended and that carry warnings.
-- `o.id = ANY ($4)` finds the open rows by key in every plan: a plan that was cached while the table was nearly empty
-- would otherwise read the whole table until the next ANALYZE. `IN (…) IS TRUE` and NOT IN look a row up in a hash of
-- the subquery. As joins they would compare each row with each result, because a plan expects ten results.
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Due times are made here, by the database's clock. Sent again after an unknown commit it changes nothing: a row
-- moves only from the attempt before.
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE s.shard = ANY ($1) AND s.token = ($2::bigint[])[array_position($1::smallint[], s.shard)]
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, NOT r.shard IN (SELECT f.shard FROM fence AS f) AS fenced
    FROM unnest($3::smallint[], $4::uuid[], $5::integer[], $6::boolean[])
        AS r (shard, delivery_id, attempt_number, ends)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    WHERE o.id = ANY ($4)
      AND ((o.id, o.attempt_count) IN (
              SELECT g.delivery_id, g.attempt_number - 1 FROM given AS g WHERE g.ends AND NOT g.fenced)) IS TRUE
    RETURNING o.id, o.warnings
), waiting AS (
    UPDATE dispatcher.delivery_open AS o
    SET attempt_count = o.attempt_count + 1,
        schedule_position = ($7::integer[])[array_position($4::uuid[], o.id)],
        next_attempt_at = coalesce(
            clock_timestamp() + make_interval(secs => ($8::float8[])[array_position($4::uuid[], o.id)]), o.next_attempt_at)
    WHERE o.id = ANY ($4)
      AND ((o.id, o.attempt_count) IN (
              SELECT g.delivery_id, g.attempt_number - 1 FROM given AS g WHERE NOT g.ends AND NOT g.fenced)) IS TRUE
    RETURNING o.id
)
SELECT given.delivery_id, given.fenced, false AS is_moved, NULL::text[] AS warnings
FROM given
WHERE given.delivery_id NOT IN (SELECT id FROM ended UNION ALL SELECT id FROM waiting)
UNION ALL
SELECT ended.id, false, true, ended.warnings
FROM ended
WHERE ended.warnings IS NOT NULL
