-- Makes an endpoint. Index: endpoint_name refuses a second of that name in its tenant. Locks: routing's row.
--
-- Parameters: $1 id, $2 tenant, $3 name, $4 url, $5 profile, $6 event types, $7 labels, $8 headers (JSON texts),
--   $9 ca_pem, $10 max_concurrency, $11 rate_limit, $12 timeout, $13 retry schedule (seconds), $14 ordering,
--   $15 shard.
INSERT INTO dispatcher.endpoint
    (id, tenant, name, url, profile, event_types, labels, headers, ca_pem, max_concurrency, rate_limit,
     timeout_seconds, retry_schedule_seconds, ordering, shard)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9, $10, $11, $12, $13, $14, $15)
