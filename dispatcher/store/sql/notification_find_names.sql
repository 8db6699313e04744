-- Notification rules by name: those of one name, or all of them.
-- Parameters: $1 tenant (NULL: any, and those for all tenants), $2 name or id (NULL: any), $3 rows at most. Index: none, they
-- are few. Locks: none.
SELECT id, name, tenant
FROM dispatcher.notification
WHERE ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR name = $2 OR id = $2)
ORDER BY name, tenant
LIMIT $3
