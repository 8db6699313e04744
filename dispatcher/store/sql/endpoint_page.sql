-- A page of endpoints that are not deleted, newest first; or the one of an id.
--
-- Parameters: $1 tenant, $2 name, $3 profile, $4 state (NULL: any), $5 and $6 time and id of the last one of the
--   page before (NULL: the first page), $7 rows at most, $8 id (NULL: any).
-- Index: endpoint_pkey where an id is given; none by time, there are thousands at most; endpoint_name where a tenant is given. Locks: none.
SELECT id, tenant, name, url, profile, event_types, labels::text AS labels, headers::text AS headers, ca_pem,
       max_concurrency, rate_limit, timeout_seconds, retry_schedule_seconds, ordering, state, reason,
       created_at, updated_at
FROM dispatcher.endpoint
WHERE deleted_at IS NULL
  AND ($1::text IS NULL OR tenant = $1)
  AND ($2::text IS NULL OR name = $2)
  AND ($3::text IS NULL OR profile = $3)
  AND ($4::text IS NULL OR state = $4)
  AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::text))
  AND ($8::text IS NULL OR id = $8)
ORDER BY created_at DESC, id DESC
LIMIT $7
