-- The types of some events. Parameters: $1 days, a few (only their partitions are locked), $2 event ids.
-- Index: event_pkey of those days. Locks: none.
SELECT e.day, e.id, e.type
FROM dispatcher.event AS e
WHERE e.day = ANY ($1::date[]) AND (e.day, e.id) IN (SELECT * FROM unnest($1::date[], $2::text[]))
