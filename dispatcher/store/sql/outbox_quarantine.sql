-- Quarantines a waiting event, because Postgres rejected its fan-out. It keeps its data, which tombstones do not.
--
-- Parameters: $1 event id. Returns the id where it still waited. Index: outbox_pkey. Locks: the row.
UPDATE dispatcher.outbox SET consumed_at = now() WHERE id = $1 AND consumed_at IS NULL RETURNING id
