-- Pauses an active endpoint. Parameters: $1 id. Index: endpoint_pkey. Locks: the row, routing's row.
UPDATE dispatcher.endpoint
SET state = 'paused', reason = NULL, paused_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active'
