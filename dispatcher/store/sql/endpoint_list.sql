-- Every endpoint of a tenant, deleted ones included, with what decides who gets an event.
--
-- Parameters: $1 tenant. Index: none, it reads the whole table: for one question of a person. Locks: none.
SELECT id, name, event_types, labels::text AS labels, state, reason, created_at, updated_at, deleted_at, rate_limit,
       delivery = 'pull' AS is_pulled, content_filter
FROM dispatcher.endpoint
WHERE tenant = $1
ORDER BY created_at, id
