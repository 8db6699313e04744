-- The newest event of an id: the one that waits or is quarantined in the outbox, else the newest that was accepted.
--
-- Parameters: $1 id, $2 tenant (NULL: any), $3 and $4 the first and the last day (store/day_walk.py). Index: outbox_pkey, event_pkey of each day from the newest. Locks: none.
(SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent,
        inserted_at, NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day, consumed_at AS quarantined_at
 FROM dispatcher.outbox
 WHERE id = $1 AND $4::date = 'infinity' AND (consumed_at IS NULL OR data IS NOT NULL) AND ($2::text IS NULL OR tenant = $2))
UNION ALL
(SELECT id, type, tenant,
        coalesce(data::text, convert_from(substring(bytes FROM data_offset + 1 FOR data_length), 'UTF8')),
        occurred_at, ordering_key, labels::text, traceparent,
        inserted_at, accepted_at, test, day, NULL
 FROM dispatcher.event
 WHERE id = $1 AND day BETWEEN $3::date AND $4::date AND ($2::text IS NULL OR tenant = $2)
 ORDER BY day DESC
 LIMIT 1)
LIMIT 1
