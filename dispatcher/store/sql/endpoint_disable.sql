-- Disables an endpoint by the system's own decision; a person's pause stays a pause.
--
-- Parameters: $1 endpoint id, $2 reason. Returns the id where it changed. Index: endpoint_pkey. Locks: the row.
UPDATE dispatcher.endpoint
SET state = 'disabled', reason = $2, updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active' AND deleted_at IS NULL
RETURNING id
