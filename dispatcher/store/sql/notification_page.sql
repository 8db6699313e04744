-- A page of notification rules, newest first.
--
-- Parameters: $1 tenant (NULL: any, and those for all tenants), $2 and $3 time and id of the last one of the page
-- before (NULL: the first page), $4 rows at most, $5 id (NULL: any). Index: none, they are few. Locks: none.
SELECT n.id, n.name, n.tenant, n.event_types, n.endpoint_ids, n.to_endpoint_id, n.email, n.recipient, n.quiet_seconds,
       n.digest_seconds, n.created_at, n.created_by, n.updated_at,
       (SELECT count(*)::integer FROM dispatcher.notification_problem AS p
        WHERE p.notification_id = n.id AND p.ended_at IS NULL) AS open_count
FROM dispatcher.notification AS n
WHERE ($1::text IS NULL OR n.tenant = $1) AND ($5::text IS NULL OR n.id = $5)
  AND ($2::timestamptz IS NULL OR (n.created_at, n.id) < ($2, $3::text))
ORDER BY n.created_at DESC, n.id DESC
LIMIT $4
