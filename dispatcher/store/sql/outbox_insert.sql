-- Commits an event as a producer would. Returns its id; no row: the id is known already.
--
-- Parameters: $1 type, $2 data (JSON text), $3 id, $4 tenant, $5 occurred at (RFC 3339 text), $6 ordering key, $7 labels (JSON text),
--   $8 traceparent; NULL from $3 on: the column's default. Index: outbox_pkey. Locks: none but the new row.
INSERT INTO dispatcher.outbox (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent)
VALUES ($1, $2::text::json, $3, coalesce($4, 'default'), coalesce($5::text::timestamptz, now()), $6,
        coalesce($7::text::jsonb, '{}'), $8)
ON CONFLICT (id) DO NOTHING
RETURNING id
