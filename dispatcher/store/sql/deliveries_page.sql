-- A page of deliveries, newest first: what is open and what has ended, merged.
--
-- Parameters (NULL: any): $1 tenant, $2 endpoint id, $3 event id, $4 event type, $5 state, $6 test, $7 labels that
--   the event must have (JSON text), $8 since, $9 until (not included), $10 and $11 time and id of the last one of the
--   page before, $12 rows at most, $13 a JSON path that one of the event's labels must fulfil,
--   $14 and $15 the first and the last day (store/day_walk.py).
-- Index: delivery_done_newest, delivery_done_unsuccessful, delivery_done_tests, delivery_done_by_endpoint or
--   delivery_done_event_endpoint of the days asked for, and delivery_open_newest or delivery_open_event_endpoint,
--   walked from the newest until the page is full; type, state and tenant are compared within the index. A tenant that
--   never had an endpoint has no deliveries, and nothing is walked. A day bounds created_at, since both are of the same
--   moment. Locks: none.
-- Labels are looked at delivery by delivery: right where many events have them; deliveries_of_events is for few.
WITH page AS (
    (SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, NULL::text AS reason, false AS test,
            attempt_count, schedule_position, next_attempt_at, created_at, NULL::timestamptz AS finished_at, warnings
     FROM dispatcher.delivery_open AS d
     WHERE day BETWEEN $14::date AND $15::date
       AND ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR endpoint_id = $2)
       AND ($3::text IS NULL OR event_id = $3)
       AND ($4::text IS NULL OR event_type = $4)
       AND ($5::text IS NULL OR state = $5 AND $5 IN ('pending', 'retrying'))
       AND ($6::boolean IS NULL OR NOT $6)
       AND ($8::timestamptz IS NULL OR created_at >= $8)
       AND ($9::timestamptz IS NULL OR created_at < $9)
       AND ($10::timestamptz IS NULL OR (created_at, id) < ($10, $11::text))
       AND ($7::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $14 AND $15 AND e.day = d.day AND e.id = d.event_id) @> $7::jsonb)
       AND ($13::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $14 AND $15 AND e.day = d.day AND e.id = d.event_id) @? $13::jsonpath)
     ORDER BY created_at DESC, id DESC
     LIMIT $12)
    UNION ALL
    (SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test,
            attempt_count, schedule_position, NULL, created_at, finished_at, warnings
     FROM dispatcher.delivery_done AS d
     WHERE day BETWEEN $14::date AND $15::date
       AND ($1::text IS NULL OR tenant = $1)
       AND ($1::text IS NULL OR (SELECT count(*) > 0 FROM (
            SELECT FROM dispatcher.endpoint WHERE tenant = $1 LIMIT 1) AS known))
       AND ($2::text IS NULL OR endpoint_id = $2)
       AND ($3::text IS NULL OR event_id = $3)
       AND ($4::text IS NULL OR event_type = $4)
       AND ($5::text IS NULL OR state = $5 AND $5 NOT IN ('pending', 'retrying'))
       AND ($6::boolean IS NULL OR test = $6)
       AND ($8::timestamptz IS NULL OR created_at >= $8 AND day >= ($8 AT TIME ZONE 'UTC')::date)
       AND ($9::timestamptz IS NULL OR created_at < $9 AND day <= ($9 AT TIME ZONE 'UTC')::date)
       AND ($10::timestamptz IS NULL OR (created_at, id) < ($10, $11::text)
                                        AND day <= ($10 AT TIME ZONE 'UTC')::date)
       AND ($7::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $14 AND $15 AND e.day = d.day AND e.id = d.event_id) @> $7::jsonb)
       AND ($13::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $14 AND $15 AND e.day = d.day AND e.id = d.event_id) @? $13::jsonpath)
     ORDER BY created_at DESC, id DESC
     LIMIT $12)
)
SELECT * FROM page ORDER BY created_at DESC, id DESC LIMIT $12
