-- The types of some events of a few days, and whether each matches a type, labels and a text.
--
-- Parameters: $1 days and $2 ids, one element for each event; the days are constants of the plan, so that only their
--   partitions are locked; NULL for any: $3 event type, or its beginning and `*`, $4 labels that the event must have (JSON
--   text); a text (core/text_pattern.py): $5 run, $6 whether escapes may hide it, $7 patterns for LIKE on lower case,
--   $8 regular expression (NULL: any event), $9 a JSON path that a label fulfils which the text names.
-- Returns `matches` for $3 and $4, and `has_text`. As in event_search, each pattern costs more than the one before.
-- Index: event_pkey of those days. Locks: none.
-- LIMIT keeps the planner from joining the other way round, by all events of the days.
SELECT g.day, g.event_id, e.type,
       ($3::text IS NULL OR CASE WHEN right($3, 1) = '*' THEN starts_with(e.type, left($3, -1)) ELSE e.type = $3 END)
       AND ($4::text IS NULL OR e.labels @> $4::jsonb) AS matches,
       $8::text IS NULL OR CASE
           WHEN e.labels @? $9::jsonpath THEN true
           WHEN (lower(e.id) LIKE ($7::text[])[1] OR e.type LIKE ($7::text[])[1]) AND (e.id ~ $8 OR e.type ~ $8) THEN true
           WHEN e.labels <> '{}' AND lower(e.labels::text COLLATE "C") LIKE ANY ($7::text[]) AND e.labels::text ~ $8 THEN true
           WHEN $5::bytea IS NOT NULL AND e.data IS NULL AND NOT ($6 AND position('\x5c75'::bytea IN e.bytes) > 0)
                AND position($5 IN e.bytes) = 0 THEN false
           WHEN lower(coalesce(e.data::text, convert_from(e.bytes, 'UTF8')) COLLATE "C") LIKE ANY ($7::text[])
           THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8')) ~ $8
           ELSE false END AS has_text
FROM unnest($1::date[], $2::text[]) AS g (day, event_id)
CROSS JOIN LATERAL (
    SELECT f.id, f.type, f.labels, f.data, f.bytes, f.data_offset, f.data_length FROM dispatcher.event AS f
    WHERE f.day = ANY ($1::date[]) AND f.day = g.day AND f.id = g.event_id
    LIMIT 1
) AS e
