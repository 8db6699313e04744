-- Locks a notification rule for a change. Parameters: $1 id, $2 tenant (NULL: any). Locks: the row.
SELECT id FROM dispatcher.notification WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) FOR UPDATE
