-- The names of some endpoints, deleted ones included: history shows them.
-- Parameters: $1 endpoint ids, $2 tenant (NULL: any). Index: endpoint_pkey. Locks: none.
SELECT id, name, deleted_at IS NOT NULL AS is_deleted
FROM dispatcher.endpoint
WHERE id = ANY ($1::text[]) AND ($2::text IS NULL OR tenant = $2)
