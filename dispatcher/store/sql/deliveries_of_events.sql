-- A page of the deliveries of some events, newest first.
--
-- Parameters: $1 the events' days, $2 their ids; NULL for any: $3 profiles, $4 tenant, $5 endpoint id, $6 event type,
--   $7 state, $8 test, $9 since, $10 until (not included), $11 and $12 time and id of the last one of the page before,
--   $13 rows at most, $14 labels that the event must have (JSON text).
-- Index: delivery_open_event_endpoint, delivery_done_event_endpoint of each event's day. Locks: none.
SELECT d.*
FROM unnest($1::date[], $2::text[]) AS g (day, event_id)
CROSS JOIN LATERAL (
    SELECT o.id, o.day, o.event_id, o.endpoint_id, o.event_type, o.tenant, o.profile, o.state, NULL::text AS reason,
           false AS test, o.attempt_count, o.schedule_position, o.next_attempt_at, o.created_at,
           NULL::timestamptz AS finished_at, o.warnings
    FROM dispatcher.delivery_open AS o
    WHERE o.event_id = g.event_id AND o.day = g.day
    UNION ALL
    SELECT f.id, f.day, f.event_id, f.endpoint_id, f.event_type, f.tenant, f.profile, f.state, f.reason,
           f.test, f.attempt_count, f.schedule_position, NULL, f.created_at, f.finished_at, f.warnings
    FROM dispatcher.delivery_done AS f
    WHERE f.day = ANY ($1::date[]) AND f.event_id = g.event_id AND f.day = g.day
) AS d
WHERE ($3::text[] IS NULL OR d.profile = ANY ($3))
  AND ($4::text IS NULL OR d.tenant = $4)
  AND ($5::text IS NULL OR d.endpoint_id = $5)
  AND ($6::text IS NULL OR d.event_type = $6)
  AND ($7::text IS NULL OR d.state = $7)
  AND ($8::boolean IS NULL OR d.test = $8)
  AND ($9::timestamptz IS NULL OR d.created_at >= $9)
  AND ($10::timestamptz IS NULL OR d.created_at < $10)
  AND ($14::text IS NULL OR (
       SELECT e.labels FROM dispatcher.event AS e WHERE e.day = ANY ($1::date[]) AND e.day = d.day AND e.id = d.event_id) @> $14::jsonb)
  AND ($11::timestamptz IS NULL OR (d.created_at, d.id) < ($11, $12::text))
ORDER BY d.created_at DESC, d.id DESC
LIMIT $13
