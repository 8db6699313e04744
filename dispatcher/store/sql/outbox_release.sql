-- Returns a quarantined event to the queue: the next claim fans it out again.
--
-- Parameters: $1 id, $2 tenant (NULL: any). Returns the tenant where it was quarantined. Index: outbox_pkey. Locks: the row.
UPDATE dispatcher.outbox SET consumed_at = NULL
WHERE id = $1 AND consumed_at IS NOT NULL AND data IS NOT NULL AND ($2::text IS NULL OR tenant = $2)
RETURNING tenant
