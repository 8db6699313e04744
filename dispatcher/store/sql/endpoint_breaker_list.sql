-- The breakers that are not closed, as living replicas published them.
--
-- Parameters: $1 endpoint ids (NULL: all), $2 tenant (NULL: any), $3 rows at most.
-- Index: endpoint_breaker_pkey where ids are given; the table holds open breakers alone. Locks: none.
SELECT b.endpoint_id, e.name AS endpoint_name, e.tenant, b.state, b.opened_at, b.probe_at, r.name AS replica
FROM dispatcher.endpoint_breaker AS b
JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp()
JOIN dispatcher.endpoint AS e ON e.id = b.endpoint_id AND e.deleted_at IS NULL
WHERE ($1::text[] IS NULL OR b.endpoint_id = ANY ($1)) AND ($2::text IS NULL OR e.tenant = $2)
ORDER BY b.opened_at
LIMIT $3
