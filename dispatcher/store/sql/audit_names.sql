-- The names of objects that entries of the audit log are about, those of deleted endpoints included.
--
-- Parameters: $1 ids, $2 tenant (NULL: any, and those of all tenants). Index: the primary keys. Locks: none.
SELECT id, name FROM dispatcher.endpoint WHERE id = ANY ($1::text[]) AND ($2::text IS NULL OR tenant = $2)
UNION ALL
SELECT id, name FROM dispatcher.token WHERE id = ANY ($1::text[]) AND ($2::text IS NULL OR tenant = $2)
UNION ALL
SELECT id, name FROM dispatcher.notification WHERE id = ANY ($1::text[]) AND ($2::text IS NULL OR tenant = $2)
UNION ALL
SELECT id, name FROM dispatcher.person WHERE id = ANY ($1::text[]) AND ($2::text IS NULL OR tenant = $2)
