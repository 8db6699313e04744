-- The endpoints of an id, deleted ones included, or of a name: what a job that sends to one of them needs.
-- Parameters: $1 id or name, $2 tenant (NULL: any), $3 rows at most. Index: endpoint_pkey; none by name, there are
-- thousands of endpoints at most. Locks: none.
SELECT id, number, tenant, event_types, labels::text AS labels, name, content_filter, state, deleted_at IS NOT NULL AS is_deleted
FROM dispatcher.endpoint
WHERE (id = $1 OR name = $1 AND deleted_at IS NULL) AND ($2::text IS NULL OR tenant = $2)
ORDER BY id <> $1
LIMIT $3
