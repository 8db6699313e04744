-- A page of certain accepted events and of those that wait or are quarantined in the outbox with the same labels, newest
-- first.
--
-- Parameters: $1 the accepted events' days, $2 their ids; NULL for any: $3 tenant, $4 type, or its beginning and `*`; $5 labels that it must have
--   (JSON text), $6 test, $7 since, $8 until (not included), $9 and $10 time and id of the last one of the page before,
--   $11 rows at most, $12 a JSON path that a label must fulfil, $13 whether of the dispatcher's own types.
-- Index: event_pkey of each event's day, outbox_waiting and outbox_quarantined for the newest thousand of each. Locks: none.
WITH waiting AS MATERIALIZED (
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position DESC LIMIT 1000)
    UNION ALL
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NOT NULL AND data IS NOT NULL
     ORDER BY consumed_at DESC, id LIMIT 1000)
), page AS (
    SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent,
           inserted_at, NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day,
           consumed_at AS quarantined_at, inserted_at AS at
    FROM waiting
    WHERE ($5::text IS NULL OR labels @> $5::jsonb) AND ($12::text IS NULL OR labels @? $12::jsonpath)
    UNION ALL
    SELECT e.id, e.type, e.tenant,
           coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8')),
           e.occurred_at, e.ordering_key, e.labels::text, e.traceparent,
           e.inserted_at, e.accepted_at, e.test, e.day, NULL, e.accepted_at
    FROM unnest($1::date[], $2::text[]) AS g (day, id)
    CROSS JOIN LATERAL (SELECT * FROM dispatcher.event AS f WHERE f.day = ANY ($1::date[]) AND f.day = g.day AND f.id = g.id) AS e
)
SELECT *
FROM page
WHERE ($3::text IS NULL OR tenant = $3)
  AND ($4::text IS NULL OR CASE WHEN right($4, 1) = '*' THEN starts_with(type, left($4, -1)) ELSE type = $4 END)
  AND ($13::boolean IS NULL OR $13 = starts_with(type, 'dispatcher.'))
  AND ($6::boolean IS NULL OR test = $6)
  AND ($7::timestamptz IS NULL OR at >= $7)
  AND ($8::timestamptz IS NULL OR at < $8)
  AND ($9::timestamptz IS NULL OR (at, id) < ($9, $10::text))
ORDER BY at DESC, id DESC
LIMIT $11
