-- Changes an endpoint; its tenant, profile and shard never change. Locks: the row, routing's row.
--
-- Parameters: $1 id, then the settings in their order (labels and headers: JSON texts).
-- Index: endpoint_pkey.
UPDATE dispatcher.endpoint
SET name = $2, url = $3, event_types = $4, labels = $5::text::jsonb, headers = $6::text::jsonb, ca_pem = $7,
    max_concurrency = $8, rate_limit = $9, timeout_seconds = $10, retry_schedule_seconds = $11, ordering = $12,
    content_filter = $13, skip_after_attempts = $14, delivery = $15, also_sign = $16, include = $17, exclude = $18,
    oauth_token_url = $19, oauth_client_id = $20, oauth_scope = $21, client_certificate = $22,
    own_bodies = own_bodies OR cardinality($17::text[]) + cardinality($18::text[]) > 0,
    updated_at = clock_timestamp()
WHERE id = $1
