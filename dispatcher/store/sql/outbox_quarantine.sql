-- Quarantines a waiting event, because Postgres rejected its fan-out. It keeps its data, which tombstones do not.
--
-- Parameters: $1 event id. Returns the id where it still waited. Index: outbox_pkey (num_nulls(): see
-- outbox_fan_out.sql). Locks: the row.
UPDATE dispatcher.outbox SET consumed_at = now() WHERE id = $1 AND num_nulls(consumed_at) = 1 RETURNING id
