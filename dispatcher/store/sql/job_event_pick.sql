-- The next events of a job that sends to one endpoint, oldest first: examines a bounded number of events behind the cursor
-- and returns those that fit, at most $6 of them.
--
-- Parameters: $1 and $2 time of acceptance and id that all are behind, $3 the time that all are before, $4 and $5 the
--   first and the last day, $6 rows at most, $7 rows to examine, $8 tenant; (NULL: any) $9 event type, or its beginning and `*`, $10 labels (JSON
--   text), $11 event ids, $12 whether the data are needed; a text that the event contains: $13 to $17 as $5 to $9 of event_match.
-- Returns in each row how many rows were examined and the place of the last one; one row without an event if none fits.
-- Index: event_newest of the days. Locks: none.
WITH examined AS MATERIALIZED (
    SELECT accepted_at, id, day
    FROM dispatcher.event
    WHERE accepted_at >= $1::timestamptz AND (accepted_at, id) > ($1::timestamptz, $2::text)
      AND accepted_at < $3::timestamptz
      AND day BETWEEN $4::date AND $5::date
    ORDER BY accepted_at, id
    LIMIT $7
), last AS (
    SELECT accepted_at, id FROM examined ORDER BY accepted_at DESC, id DESC LIMIT 1
)
SELECT (SELECT count(*) FROM examined) AS examined_count, w.last_at, w.last_id, f.*
FROM (SELECT (SELECT accepted_at FROM last) AS last_at, (SELECT id FROM last) AS last_id) AS w
LEFT JOIN LATERAL (
    SELECT e.accepted_at, e.id, e.day, e.type, e.tenant, e.inserted_at, e.labels::text AS labels,
           CASE WHEN e.erased_at IS NOT NULL THEN 'event_erased' END AS obstacle,
           CASE WHEN $12 AND e.erased_at IS NULL
                THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8'))
           END AS data
    FROM examined AS x
    JOIN dispatcher.event AS e ON e.day BETWEEN $4 AND $5 AND e.day = x.day AND e.id = x.id
    WHERE NOT e.test AND e.tenant = $8
      AND ($9::text IS NULL OR CASE WHEN right($9, 1) = '*' THEN starts_with(e.type, left($9, -1)) ELSE e.type = $9 END)
      AND ($10::text IS NULL OR e.labels @> $10::jsonb)
      AND ($11::text[] IS NULL OR e.id = ANY ($11))
      AND ($16::text IS NULL OR CASE
          WHEN e.labels @? $17::jsonpath THEN true
          WHEN (lower(e.id) LIKE ($15::text[])[1] OR e.type LIKE ($15::text[])[1]) AND (e.id ~ $16 OR e.type ~ $16) THEN true
          WHEN e.labels <> '{}' AND lower(e.labels::text COLLATE "C") LIKE ANY ($15::text[]) AND e.labels::text ~ $16 THEN true
          WHEN $13::bytea IS NOT NULL AND e.data IS NULL AND NOT ($14 AND position('\x5c75'::bytea IN e.bytes) > 0)
               AND position($13 IN e.bytes) = 0 THEN false
          WHEN lower(coalesce(e.data::text, convert_from(e.bytes, 'UTF8')) COLLATE "C") LIKE ANY ($15::text[])
          THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8')) ~ $16
          ELSE false END)
    ORDER BY e.accepted_at, e.id
    LIMIT $6
) AS f ON true
ORDER BY f.accepted_at, f.id
