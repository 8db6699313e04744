-- A page of endpoints that are not deleted, newest first; or those of some ids. With their health, and the
-- counts of waiting and failed deliveries.
--
-- Parameters: $1 tenant, $2 name, $3 profile, $4 state (NULL: any), $5 and $6 time and id of the last one of the
--   page before (NULL: the first page), $7 rows at most, $8 ids (NULL: any), $9 health (NULL: any), $10 a part of the name
--   (NULL: any), $11 count at most (a larger count is returned as this plus one), $12 the day from which failed
--   deliveries are counted.
-- Index: endpoint_pkey where ids are given; none by time, there are thousands at most; endpoint_name where a tenant is
-- given; endpoint_status_pkey, delivery_open_due, delivery_done_failed. Locks: none.
SELECT e.id, e.tenant, e.name, e.url, e.profile, e.event_types, e.labels, e.headers, e.ca_pem, e.max_concurrency,
       e.rate_limit, e.timeout_seconds, e.retry_schedule_seconds, e.ordering, e.content_filter,
       e.skip_after_attempts, e.delivery, e.also_sign, e.include, e.exclude, e.oauth_token_url, e.oauth_client_id,
       e.oauth_scope, e.client_certificate, e.state, e.reason, e.created_at,
       e.updated_at, e.health, e.health_since, e.health_cause, e.health_response_code,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS d
                              WHERE d.endpoint_no = e.number LIMIT $11 + 1) AS w) AS waiting_count,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_done AS d
                              WHERE d.endpoint_no = e.number AND d.state = 4 /* failed */ AND NOT d.test
                                AND d.day >= $12::date LIMIT $11 + 1) AS f) AS failed_count
FROM (
    SELECT p.id, p.number, p.tenant, p.name, p.url, p.profile, p.event_types, p.labels::text AS labels,
           p.headers::text AS headers, p.ca_pem, p.max_concurrency, p.rate_limit, p.timeout_seconds,
           p.retry_schedule_seconds, p.ordering, p.content_filter, p.skip_after_attempts, p.delivery, p.also_sign,
           p.include, p.exclude, p.oauth_token_url, p.oauth_client_id, p.oauth_scope, p.client_certificate, p.state,
           p.reason, p.created_at, p.updated_at,
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
) AS e
ORDER BY e.created_at DESC, e.id DESC
