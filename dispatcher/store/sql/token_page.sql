-- A page of tokens, newest first, revoked and expired ones included.
--
-- Parameters: $1 tenant (NULL: any, and those for all tenants), $2 and $3 time and id of the last one of the page
-- before (NULL: the first page), $4 rows at most. Index: none, they are few. Locks: none.
SELECT id, name, prefix, role, tenant, created_at, created_by, expires_at, last_used_at, revoked_at, endpoint_id
FROM dispatcher.token
WHERE ($1::text IS NULL OR tenant = $1)
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC
LIMIT $4
