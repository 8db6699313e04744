-- Quarantined events, the latest first.
--
-- Parameters: $1 tenant (NULL: any), $2 and $3 time and id of the last one of the page before (NULL: none), $4 rows at most.
-- Index: outbox_quarantined. Locks: none.
SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent, inserted_at,
       NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day, consumed_at AS quarantined_at
FROM dispatcher.outbox
WHERE consumed_at IS NOT NULL AND data IS NOT NULL
  AND ($1::text IS NULL OR tenant = $1)
  AND ($2::timestamptz IS NULL OR consumed_at < $2 OR consumed_at = $2 AND id > $3::text)
ORDER BY consumed_at DESC, id
LIMIT $4
