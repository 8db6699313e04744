-- Makes an endpoint. Index: endpoint_name refuses a second of that name in its tenant. Locks: routing's row.
--
-- Parameters: $1 id, $2 tenant, $3 profile, $4 shard, then the settings in their order (labels and headers: JSON texts).
INSERT INTO dispatcher.endpoint
    (id, tenant, profile, shard, name, url, event_types, labels, headers, ca_pem, max_concurrency, rate_limit,
     timeout_seconds, retry_schedule_seconds, ordering, content_filter, skip_after_attempts, delivery, also_sign, include,
     exclude, oauth_token_url, oauth_client_id, oauth_scope, client_certificate, own_bodies)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, cardinality($20::text[]) + cardinality($21::text[]) > 0)
