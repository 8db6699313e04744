-- Takes the oldest waiting event out of the way, since Postgres refuses what becomes of it. It keeps its data and
-- stands in the outbox as consumed without an event of its id: dispatcher.event tells the two apart.
--
-- Parameters: none. Returns its id. Index: outbox_waiting. Locks: the row.
UPDATE dispatcher.outbox
SET consumed_at = now()
WHERE ctid = (SELECT ctid FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
