-- The waiting and quarantined events that contain a text, newest first; of each kind the newest thousand are read.
--
-- Parameters (NULL: any): $1 tenant, $2 type, or its beginning and `*`; $3 labels that it must have (JSON text), $4 test, $5 since, $6 until (not
--   included), $7 and $8 time and id that all are before, $9 patterns for LIKE on lower case, $10 regular expression
--   (core/text_pattern.py); events that were found before: $11 an id, $12 a JSON path that a label fulfils; $13 rows at
--   most, $14 whether of the dispatcher's own types.
-- Index: outbox_waiting, outbox_quarantined. Locks: none.
WITH waiting AS MATERIALIZED (
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position DESC LIMIT 1000)
    UNION ALL
    (SELECT * FROM dispatcher.outbox WHERE consumed_at IS NOT NULL AND data IS NOT NULL
     ORDER BY consumed_at DESC, id LIMIT 1000)
)
SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent, inserted_at,
       NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day, consumed_at AS quarantined_at
FROM waiting
WHERE ($1::text IS NULL OR tenant = $1)
  AND ($2::text IS NULL OR CASE WHEN right($2, 1) = '*' THEN starts_with(type, left($2, -1)) ELSE type = $2 END)
  AND ($14::boolean IS NULL OR $14 = starts_with(type, 'dispatcher.'))
  AND ($3::text IS NULL OR labels @> $3::jsonb)
  AND ($4::boolean IS NULL OR NOT $4)
  AND ($5::timestamptz IS NULL OR inserted_at >= $5)
  AND ($6::timestamptz IS NULL OR inserted_at < $6)
  AND ($7::timestamptz IS NULL OR (inserted_at, id) < ($7, $8::text))
  AND ($11::text IS NULL OR id <> $11)
  AND ($12::text IS NULL OR NOT labels @? $12::jsonpath)
  AND CASE WHEN lower(data::text COLLATE "C") LIKE ANY ($9) AND data::text ~ $10 THEN true
           ELSE id ~ $10 OR type ~ $10 OR labels::text ~ $10 END
ORDER BY inserted_at DESC, id DESC
LIMIT $13
