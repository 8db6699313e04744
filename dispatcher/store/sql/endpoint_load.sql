-- One endpoint that is not deleted, as people see it.
--
-- Parameters: $1 id, $2 tenant (NULL: any). Index: endpoint_pkey. Locks: none.
SELECT id, tenant, name, url, profile, event_types, labels::text AS labels, headers::text AS headers, ca_pem,
       max_concurrency, rate_limit, timeout_seconds, retry_schedule_seconds, ordering, state, reason,
       created_at, updated_at
FROM dispatcher.endpoint
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND deleted_at IS NULL
