-- A page of endpoints that are not deleted, newest first; or those of some ids. With their health.
--
-- Parameters: $1 tenant, $2 name, $3 profile, $4 state (NULL: any), $5 and $6 time and id of the last one of the
--   page before (NULL: the first page), $7 rows at most, $8 ids (NULL: any), $9 health (NULL: any), $10 a part of the name
--   (NULL: any).
-- Index: endpoint_pkey where ids are given; none by time, there are thousands at most; endpoint_name where a tenant is
-- given; endpoint_status_pkey. Locks: none.
SELECT p.id, p.tenant, p.name, p.url, p.profile, p.event_types, p.labels::text AS labels, p.headers::text AS headers,
       p.ca_pem, p.max_concurrency, p.rate_limit, p.timeout_seconds, p.retry_schedule_seconds, p.ordering,
       p.content_filter, p.skip_after_attempts, p.delivery, p.also_sign, p.include, p.exclude, p.oauth_token_url,
       p.oauth_client_id, p.oauth_scope, p.client_certificate, p.state, p.reason, p.created_at, p.updated_at,
       coalesce(s.health, 'healthy') AS health, s.since AS health_since, s.cause AS health_cause,
       s.response_code AS health_response_code
FROM dispatcher.endpoint AS p
LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = p.id
WHERE p.deleted_at IS NULL
  AND ($1::text IS NULL OR p.tenant = $1)
  AND ($2::text IS NULL OR p.name = $2)
  AND ($3::text IS NULL OR p.profile = $3)
  AND ($4::text IS NULL OR p.state = $4)
  AND ($5::timestamptz IS NULL OR (p.created_at, p.id) < ($5, $6::text))
  AND ($8::text[] IS NULL OR p.id = ANY ($8))
  AND ($9::text IS NULL OR coalesce(s.health, 'healthy') = $9)
  AND ($10::text IS NULL OR strpos(lower(p.name), lower($10)) > 0)
ORDER BY p.created_at DESC, p.id DESC
LIMIT $7
