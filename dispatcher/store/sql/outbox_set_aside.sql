-- Takes a waiting event out of the way, since Postgres refuses what becomes of it. It keeps its data and stands in
-- the outbox as consumed without an event of its id: dispatcher.event tells the two apart.
--
-- Parameters: $1 event id. Returns the id where it still waited. Index: outbox_pkey. Locks: the row.
UPDATE dispatcher.outbox SET consumed_at = now() WHERE id = $1 AND consumed_at IS NULL RETURNING id
