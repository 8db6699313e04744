-- Current secrets of a tenant's other endpoints, newest first. Parameters: $1 tenant, $2 endpoint id that is left out, $3 rows at most. Index: endpoint_secret_one. Locks: none.
SELECT o.id, o.name, s.key_id, s.sealed
FROM dispatcher.endpoint o
JOIN dispatcher.endpoint_secret s ON s.endpoint_id = o.id AND s.role = 'current'
WHERE o.tenant = $1 AND o.id <> $2 AND o.deleted_at IS NULL
ORDER BY o.id DESC
LIMIT $3
