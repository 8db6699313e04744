-- A page of the deliveries of some events, newest first.
--
-- Parameters, one element for each event: $1 days, $2 ids, $3 and $4 the lowest and highest id that its deliveries can
--   have; NULL for any: $5 profiles, $6 tenant, $7 endpoint id, $8 event type, or its beginning and `*`; $9 codes of the states, $10 test, $11 the
--   lowest id (since), $12 the id that all are below (until, or the last one of the page before); $13 rows at most,
--   $14 labels that the event must have (JSON text), $15 classes of the last response, as in delivery_page.
-- Index: a range of delivery_open_pkey, delivery_done_pkey of each event's day; event_pkey. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM unnest($1::date[], $2::text[], $3::uuid[], $4::uuid[]) AS g (day, event_id, low, high)
JOIN dispatcher.event AS e ON e.day = ANY ($1::date[]) AND e.day = g.day AND e.id = g.event_id
CROSS JOIN LATERAL (
    SELECT o.id, o.day, o.event_id, o.endpoint_no,
           (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state, NULL::smallint AS reason,
           false AS test, o.attempt_count, o.schedule_position, o.next_attempt_at, NULL::timestamptz AS finished_at,
           o.warnings, NULL::smallint AS response_code, NULL::smallint AS outcome
    FROM dispatcher.delivery_open AS o
    WHERE o.id BETWEEN g.low AND g.high AND o.event_id = g.event_id AND o.day = g.day
    UNION ALL
    SELECT f.id, f.day, f.event_id, f.endpoint_no, f.state, f.reason, f.test, f.attempt_count, f.schedule_position,
           NULL, f.finished_at, f.warnings, f.response_code, f.outcome
    FROM dispatcher.delivery_done AS f
    WHERE f.day = ANY ($1::date[]) AND f.event_id = g.event_id AND f.day = g.day
) AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
WHERE ($5::text[] IS NULL OR p.profile = ANY ($5))
  AND ($6::text IS NULL OR p.tenant = $6)
  AND ($7::text IS NULL OR p.id = $7)
  AND ($8::text IS NULL OR CASE WHEN right($8, 1) = '*' THEN starts_with(e.type, left($8, -1)) ELSE e.type = $8 END)
  AND ($9::smallint[] IS NULL OR d.state = ANY ($9))
  AND ($15::smallint[] IS NULL OR 2 = ANY ($15) OR d.state <> 3)
  AND ($15::smallint[] IS NULL OR d.state = 3 OR d.attempt_count > 0 AND coalesce((
       SELECT ARRAY[coalesce(a.response_code / 100, 100 + a.outcome), a.response_code]::smallint[] FROM dispatcher.attempt AS a
       WHERE a.day = ANY ($1::date[]) AND a.day = d.day AND a.event_id = d.event_id AND a.endpoint_no = d.endpoint_no
       ORDER BY a.attempt_number DESC LIMIT 1),
            ARRAY[coalesce(d.response_code / 100, 100 + d.outcome), d.response_code]::smallint[]) && $15)
  AND ($10::boolean IS NULL OR d.test = $10)
  AND ($11::uuid IS NULL OR d.id >= $11)
  AND ($12::uuid IS NULL OR d.id < $12)
  AND ($14::text IS NULL OR e.labels @> $14::jsonb)
ORDER BY d.id DESC
LIMIT $13
