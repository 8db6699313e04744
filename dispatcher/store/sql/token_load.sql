-- One token, locked for a change.
--
-- Parameters: $1 id, $2 tenant (NULL: any, and those for all tenants). Index: token_pkey. Locks: the row.
SELECT id, name, prefix, role, tenant, created_at, created_by, expires_at, last_used_at, revoked_at, endpoint_id
FROM dispatcher.token
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)
FOR UPDATE
