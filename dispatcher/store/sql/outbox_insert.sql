-- Commits events as a producer would, in the order of the parameters. Returns one row per new event, in the same order.
-- There is none for an id that is known already, and for a token that is not valid (any more).
--
-- Parameters, one element per event: $1 types, $2 data (JSON text), $3 ids, $4 tenants, $5 occurred at (RFC 3339 text),
--   $6 ordering keys, $7 labels (JSON text), $8 traceparents, $9 SHA-256 of tokens; NULL: the column's default, no token.
--   An array of which every element is NULL may be NULL itself. $10 whether more than the ids is returned.
-- A producer that holds an uncommitted row of the same id makes every insert of that id wait, and the API has few
-- connections. The lock's time limit is part of the statement, so that it costs no round trip.
-- Index: outbox_pkey, token_hash. Locks: none but the new rows.
WITH bound AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true) AS set),
valid AS MATERIALIZED (
    SELECT hash FROM dispatcher.token
    WHERE hash = ANY ($9::bytea[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
)
INSERT INTO dispatcher.outbox (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent)
SELECT n.type, n.data::json, n.id, n.tenant, coalesce(n.occurred_at::timestamptz, now()), n.ordering_key,
       coalesce(n.labels::jsonb, '{}'), n.traceparent
FROM bound,
     unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[])
         WITH ORDINALITY AS n (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent, token, place)
WHERE bound.set IS NOT NULL AND (n.token IS NULL OR n.token IN (SELECT hash FROM valid))
ORDER BY n.place
ON CONFLICT (id) DO NOTHING
RETURNING id, CASE WHEN $10 THEN occurred_at END AS occurred_at,
          CASE WHEN $10 AND labels <> '{}' THEN labels::text END AS labels, CASE WHEN $10 THEN inserted_at END AS inserted_at
