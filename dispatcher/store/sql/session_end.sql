-- Ends a session and returns its actor and its tenant.
--
-- Parameters: $1 id, $2 tenant (NULL: any, and those for all tenants). Index: session_id_key. Locks: the row.
DELETE FROM dispatcher.session WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) RETURNING actor, tenant
