-- A page of events, newest first: those that wait or are quarantined in the outbox and those that were accepted.
--
-- Parameters (NULL: any): $1 tenant, $2 type, or its beginning and `*`; $3 labels that it must have (JSON text), $4 test, $5 since,
--   $6 until (not included), $7 and $8 time and id of the last one of the page before, $9 rows at most, $10 a JSON
--   path that a label must fulfil, $11 whether of the dispatcher's own types, $12 and $13 the first and the last day (store/day_walk.py).
-- The time is that of acceptance, of the insert where it still waits. Of the waiting ones only the newest thousand
-- are looked at: a backlog of millions must not keep this page from opening.
-- Index: outbox_waiting, outbox_quarantined, event_newest of the days asked for, from the newest until the page is full; hashes of
-- type and tenant are compared within it. For labels that few events have there is events_page_of_keys. Locks: none.
WITH waiting AS MATERIALIZED (
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position DESC LIMIT 1000)
    UNION ALL
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NOT NULL AND data IS NOT NULL
     ORDER BY consumed_at DESC, id LIMIT 1000)
), page AS (
    (SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent,
            inserted_at, NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day,
            consumed_at AS quarantined_at, inserted_at AS at
     FROM waiting
     WHERE (inserted_at AT TIME ZONE 'UTC')::date BETWEEN $12::date AND $13::date
       AND ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR CASE WHEN right($2, 1) = '*' THEN starts_with(type, left($2, -1)) ELSE type = $2 END)
       AND ($11::boolean IS NULL OR $11 = starts_with(type, 'dispatcher.'))
       AND ($3::text IS NULL OR labels @> $3::jsonb)
       AND ($10::text IS NULL OR labels @? $10::jsonpath)
       AND ($4::boolean IS NULL OR NOT $4)
       AND ($5::timestamptz IS NULL OR inserted_at >= $5)
       AND ($6::timestamptz IS NULL OR inserted_at < $6)
       AND ($7::timestamptz IS NULL OR (inserted_at, id) < ($7, $8::text))
     ORDER BY inserted_at DESC, id DESC
     LIMIT $9)
    UNION ALL
    (SELECT id, type, tenant,
            coalesce(data::text, convert_from(substring(bytes FROM data_offset + 1 FOR data_length), 'UTF8')),
            occurred_at, ordering_key, labels::text, traceparent,
            inserted_at, accepted_at, test, day, NULL, accepted_at
     FROM dispatcher.event
     WHERE day BETWEEN $12::date AND $13::date
       AND ($1::text IS NULL OR tenant = $1)
       AND ($1::text IS NULL OR hashtext(tenant) = hashtext($1))
       AND ($2::text IS NULL OR CASE WHEN right($2, 1) = '*' THEN starts_with(type, left($2, -1))
                                     ELSE type = $2 AND hashtext(type) = hashtext($2) END)
       AND ($11::boolean IS NULL OR $11 = starts_with(type, 'dispatcher.'))
       AND ($3::text IS NULL OR labels @> $3::jsonb)
       AND ($10::text IS NULL OR labels @? $10::jsonpath)
       AND ($4::boolean IS NULL OR test = $4)
       AND ($5::timestamptz IS NULL OR accepted_at >= $5 AND day >= ($5 AT TIME ZONE 'UTC')::date)
       AND ($6::timestamptz IS NULL OR accepted_at < $6 AND day <= ($6 AT TIME ZONE 'UTC')::date)
       AND ($7::timestamptz IS NULL OR accepted_at <= $7 AND (accepted_at, id) < ($7, $8::text)
                                       AND day <= ($7 AT TIME ZONE 'UTC')::date)
     ORDER BY accepted_at DESC, id DESC
     LIMIT $9)
)
SELECT * FROM page ORDER BY at DESC, id DESC LIMIT $9
