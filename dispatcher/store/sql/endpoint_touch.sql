-- Gives an endpoint a new version, for a change of its secrets. Returns when that was.
--
-- Parameters: $1 id. Index: endpoint_pkey. Locks: the row, routing's row.
UPDATE dispatcher.endpoint SET updated_at = clock_timestamp() WHERE id = $1 RETURNING updated_at
