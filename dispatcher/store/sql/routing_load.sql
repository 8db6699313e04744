-- Endpoints that are not deleted, with their encrypted secrets, oldest first.
--
-- Parameters: $1 ids. Index: endpoint_pkey, endpoint_secret_of. Locks: none.
SELECT p.id, p.number, p.revision, p.tenant, p.name, p.url, p.profile, p.event_types, p.labels::text AS labels, p.headers::text AS headers,
       p.ca_pem, p.max_concurrency, p.rate_limit, p.timeout_seconds, p.retry_schedule_seconds, p.state, p.reason,
       p.content_filter, p.delivery, p.also_sign, p.include, p.exclude, p.oauth_token_url, p.oauth_client_id,
       p.oauth_scope, p.client_certificate,
       CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS body_key,
       p.shard,
       coalesce(array_agg(s.id ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_ids,
       coalesce(array_agg(s.role ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_roles,
       coalesce(array_agg(s.key_id ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_key_ids,
       coalesce(array_agg(s.sealed ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secrets_sealed,
       coalesce(array_agg(least(s.expires_at, '9999-01-01') ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secrets_expire_at,
       p.ordering, p.skip_after_attempts
FROM dispatcher.endpoint AS p
LEFT JOIN dispatcher.endpoint_secret AS s ON s.endpoint_id = p.id AND s.role <> 'staged'
WHERE p.id = ANY ($1::text[]) AND p.deleted_at IS NULL
GROUP BY p.id
ORDER BY p.id
