-- Endpoints by name: those of one name, or all of them, for completion and for suggestions.
-- Parameters: $1 tenant (NULL: any), $2 name or id (NULL: any), $3 rows at most. Index: none, there are thousands of endpoints
-- at most. Locks: none.
SELECT id, name, tenant
FROM dispatcher.endpoint
WHERE deleted_at IS NULL AND ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR name = $2 OR id = $2)
ORDER BY name, tenant
LIMIT $3
