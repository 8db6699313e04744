-- Takes the oldest waiting events out of the outbox. The caller inserts them into history with their bodies, in the
-- same transaction (store/outbox.py).
--
-- Parameters: $1 events at most, $2 bytes of data at most (one event is taken whatever its size),
--   $3 the one event to take (NULL: the oldest ones), $4 the position to begin at (0: all; see core/floor.py).
-- Index: outbox_waiting. Locks: the rows taken; rows that another replica holds are skipped.
-- By row state, never by a cursor on position: commits come out of order, and a cursor loses what commits behind it.
-- accepted_at and routing_version are in the first row alone. Ids that we made leave the table; ids that producers gave
-- stay as tombstones without data, so that a second insert of one is refused for as long as it must be.
-- A malformed traceparent (W3C) is dropped here. The routing version is read in this statement's snapshot: an endpoint
-- saved before an event's commit is in it.
WITH waiting AS MATERIALIZED (
    SELECT position, id, type, tenant, data, occurred_at, ordering_key, labels, inserted_at,
           CASE WHEN traceparent ~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END
               AS traceparent,
           id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours, bytes
    FROM dispatcher.outbox
    WHERE consumed_at IS NULL AND position >= $4 AND ($3::text IS NULL OR id = $3)
    ORDER BY position
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), taken AS MATERIALIZED (
    SELECT *
    FROM (SELECT *, sum(bytes) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before FROM waiting) AS measured
    WHERE bytes_before < $2
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE id_is_ours))
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, bytes = 0, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE NOT id_is_ours))
)
SELECT id, type, data::text AS data, tenant, occurred_at, inserted_at,
       CASE WHEN labels <> '{}' THEN labels::text END AS labels, traceparent, ordering_key,
       CASE WHEN bytes_before = 0 THEN now() END AS accepted_at,
       CASE WHEN bytes_before = 0 THEN (SELECT version FROM dispatcher.routing) END AS routing_version,
       position
FROM taken
ORDER BY position, bytes_before
