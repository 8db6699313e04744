-- The types of some events of a few days, and whether each matches a type and labels.
--
-- Parameters: $1 days and $2 ids, one element for each event; the days are constants of the plan, so that only their
--   partitions are locked; NULL for any: $3 event type, or its beginning and `*`, $4 labels that the event must have (JSON text).
-- Index: event_pkey of those days. Locks: none.
-- LIMIT keeps the planner from joining the other way round, by all events of the days.
SELECT g.day, g.event_id, e.type,
       ($3::text IS NULL OR CASE WHEN right($3, 1) = '*' THEN starts_with(e.type, left($3, -1)) ELSE e.type = $3 END) AND ($4::text IS NULL OR e.labels @> $4::jsonb) AS matches
FROM unnest($1::date[], $2::text[]) AS g (day, event_id)
CROSS JOIN LATERAL (
    SELECT f.type, f.labels FROM dispatcher.event AS f
    WHERE f.day = ANY ($1::date[]) AND f.day = g.day AND f.id = g.event_id
    LIMIT 1
) AS e
