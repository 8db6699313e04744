-- The accepted events of one slice of a day that contain a text, newest first.
--
-- Parameters: $1 day, $2 accepted at or after this, $3 and $4 time and id that all are before (NULL: any); NULL for any:
--   $5 tenant, $6 type, or its beginning and `*`; $7 labels that it must have (JSON text), $8 test; the text's patterns (core/text_pattern.py): $9 run
--   (NULL: none), $10 whether escapes may hide it, $11 patterns for LIKE on lower case, $12 regular expression; events that
--   are left out, because they were found before: $13 an id, $14 a JSON path that a label fulfils; $15 rows at most;
--   $16 whether of the dispatcher's own types (NULL: any); $17 and $18 (NULL: as $17) patterns of $11, of which one must
--   match the text that is indexed; NULL where the day has no index.
-- Index: event_newest of that day, so that every row of the slice is read, or the index of its text. Locks: none.
-- Each pattern costs more than the one before, and CASE keeps their order: 1 µs for the run in 500 bytes, 4 µs for LIKE,
-- 12 µs for the regular expression. COLLATE "C" makes lower() five times as fast; it changes ASCII alone.
SELECT id, type, tenant, content.data, occurred_at, ordering_key, labels::text AS labels, traceparent, inserted_at,
       accepted_at, test, day
FROM dispatcher.event AS e
CROSS JOIN LATERAL (
    SELECT coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8'))
           AS data
) AS content
WHERE day = $1
  AND accepted_at >= $2
  AND ($3::timestamptz IS NULL OR accepted_at <= $3 AND (accepted_at, id) < ($3, $4::text))
  AND ($5::text IS NULL OR tenant = $5 AND hashtext(tenant) = hashtext($5))
  AND ($6::text IS NULL OR CASE WHEN right($6, 1) = '*' THEN starts_with(type, left($6, -1))
                                ELSE type = $6 AND hashtext(type) = hashtext($6) END)
  AND ($16::boolean IS NULL OR $16 = starts_with(type, 'dispatcher.'))
  AND ($7::text IS NULL OR labels @> $7::jsonb)
  AND ($8::boolean IS NULL OR test = $8)
  AND ($13::text IS NULL OR id <> $13)
  AND ($14::text IS NULL OR NOT labels @? $14::jsonpath)
  AND ($17::text IS NULL OR dispatcher.event_text(id, type, labels, e.data, bytes) LIKE $17
       OR dispatcher.event_text(id, type, labels, e.data, bytes) LIKE coalesce($18::text, $17))
  AND CASE
      WHEN (lower(id) LIKE ($11::text[])[1] OR type LIKE ($11::text[])[1]) AND (id ~ $12 OR type ~ $12) THEN true
      WHEN labels <> '{}' AND lower(labels::text COLLATE "C") LIKE ANY ($11::text[]) AND labels::text ~ $12 THEN true
      WHEN $9::bytea IS NOT NULL AND e.data IS NULL AND NOT ($10 AND position('\x5c75'::bytea IN bytes) > 0)
           AND position($9 IN bytes) = 0 THEN false
      WHEN lower(coalesce(e.data::text, convert_from(bytes, 'UTF8')) COLLATE "C") LIKE ANY ($11::text[])
      THEN content.data ~ $12
      ELSE false
      END
ORDER BY accepted_at DESC, id DESC
LIMIT $15
