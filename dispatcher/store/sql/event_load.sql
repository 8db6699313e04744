-- What an attempt needs of some events: their type, their times, and their bytes under certain profiles. An event with
-- many deliveries is read once.
--
-- Parameters, one element for each event and profile: $1 days, $2 event ids, $3 profiles; $4 the days, each once and only a
--   few, because their partitions are locked.
-- Index: event_pkey, body_pkey of those days. Locks: none.
-- LIMIT keeps the planner from joining the other way round, by all events of the days.
SELECT g.day, g.event_id, g.profile, e.type, greatest(least(e.inserted_at, '9999-01-01'), '1970-01-01') AS inserted_at,
       e.traceparent,
       CASE WHEN e.profile = g.profile THEN e.bytes ELSE b.bytes END AS bytes
FROM unnest($1::date[], $2::text[], $3::text[]) AS g (day, event_id, profile)
CROSS JOIN LATERAL (
    SELECT f.type, f.inserted_at, f.traceparent, f.profile, f.bytes FROM dispatcher.event AS f
    WHERE f.day = ANY ($4::date[]) AND f.day = g.day AND f.id = g.event_id
    LIMIT 1
) AS e
LEFT JOIN LATERAL (
    SELECT c.bytes FROM dispatcher.body AS c
    WHERE e.profile IS DISTINCT FROM g.profile
      AND c.day = ANY ($4::date[]) AND c.day = g.day AND c.event_id = g.event_id AND c.profile = g.profile
    LIMIT 1
) AS b ON true
