-- The ids and days of a page of deliveries, and which of them are open, newest first.
--
-- Parameters (NULL: any): $1 tenant, $2 endpoint id, $3 event id, $4 event type, or its beginning and `*`; $5 the code of
--   the type (NULL with `*`), $6 codes of the states, $7 test, $8 labels that the event must have (JSON text), $9 the lowest id (since), $10 the id that all are below
--   (until, or the last one of the page before), $11 and $12 the days of these, $13 rows at most, $14 a JSON path that
--   one of the event's labels must fulfil, $15 classes and codes of the last response (core/response_classes.py), $16 codes of types
--   that do not begin as $4, which need no look at their events; $17 and $18 the first and the last day (store/day_walk.py).
-- A succeeded delivery has the class 2xx, whatever a later resend came to. The others' last attempt is one read each.
-- The ids are picked from the index alone where the filters allow it; delivery_list_of_ids reads their rows. A type is
-- compared by the event's id, which is in the row; a pattern, whose codes are no condition of the index, by the delivery's
-- id, so that those that are left out are not read. NOT IN keeps the planner from estimating each code in each partition,
-- which took it 40 ms. Ended deliveries are read a day at a time: a merge of all days reads each down to its first match.
-- Index: delivery_done_id, delivery_done_by_endpoint, delivery_done_unsuccessful (_by_endpoint), delivery_done_tests or
--   delivery_done_pkey of the days asked for, and delivery_open_pkey, read backwards until the page is full; type,
--   state and endpoint are compared within the index. An id has the day of its partition. A tenant that never had an
--   endpoint has no deliveries, and nothing is read. Locks: none.
-- Labels are compared delivery by delivery: right where many events have them; deliveries_of_events is for few.
WITH page AS MATERIALIZED (
    (SELECT id, day, true AS is_open
     FROM dispatcher.delivery_open AS d
     WHERE day BETWEEN $17::date AND $18::date
       AND ($1::text IS NULL OR endpoint_no IN (SELECT number FROM dispatcher.endpoint WHERE tenant = $1))
       AND ($2::text IS NULL OR endpoint_no = (SELECT number FROM dispatcher.endpoint WHERE id = $2))
       AND ($3::text IS NULL OR event_id = $3)
       AND ($5::integer IS NULL OR event_type_code = $5)
       AND ($16::integer[] IS NULL OR event_type_code NOT IN (SELECT unnest($16)))
       AND ($4::text IS NULL OR (
            SELECT CASE WHEN right($4, 1) = '*' THEN starts_with(e.type, left($4, -1)) ELSE e.type = $4 END
            FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18 AND e.day = d.day AND e.id = d.event_id))
       AND ($6::smallint[] IS NULL OR 1 = ANY ($6) AND schedule_position = 0 OR 2 = ANY ($6) AND schedule_position > 0)
       AND ($15::smallint[] IS NULL OR attempt_count > 0 AND (
            SELECT ARRAY[coalesce(a.response_code / 100, 100 + a.outcome), a.response_code]::smallint[] FROM dispatcher.attempt AS a
            WHERE a.day BETWEEN $17 AND $18 AND a.day = d.day AND a.event_id = d.event_id
              AND a.endpoint_no = d.endpoint_no
            ORDER BY a.attempt_number DESC LIMIT 1) && $15)
       AND ($7::boolean IS NULL OR NOT $7)
       AND ($9::uuid IS NULL OR id >= $9)
       AND ($10::uuid IS NULL OR id < $10)
       AND ($8::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
            AND e.day = d.day AND e.id = d.event_id) @> $8::jsonb)
       AND ($14::text IS NULL OR (
            SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
            AND e.day = d.day AND e.id = d.event_id) @? $14::jsonpath)
     ORDER BY id DESC
     LIMIT $13)
    UNION ALL
    (SELECT l.id, l.day, false
     FROM generate_series(
            least($18::date, $12::date, (now() AT TIME ZONE 'UTC')::date + 1)::timestamp,
            greatest($17::date, $11::date), interval '-1 day') WITH ORDINALITY AS g (midnight, place)
     CROSS JOIN LATERAL (
         SELECT id, day
         FROM dispatcher.delivery_done AS d
         WHERE day BETWEEN $17::date AND $18::date AND day = g.midnight::date
           AND ($1::text IS NULL OR endpoint_no IN (SELECT number FROM dispatcher.endpoint WHERE tenant = $1))
           AND ($1::text IS NULL OR (SELECT count(*) > 0 FROM (
                SELECT FROM dispatcher.endpoint WHERE tenant = $1 LIMIT 1) AS known))
           AND ($2::text IS NULL OR endpoint_no = (SELECT number FROM dispatcher.endpoint WHERE id = $2))
           AND ($3::text IS NULL OR event_id = $3)
           AND ($5::integer IS NULL OR event_type_code = $5)
           AND ($16::integer[] IS NULL OR event_type_code NOT IN (SELECT unnest($16)))
           AND ($5::integer IS NULL OR (
                SELECT e.type = $4 FROM dispatcher.event AS e
                WHERE e.day BETWEEN $17 AND $18 AND e.day = g.midnight::date AND e.id = d.event_id))
           AND ($16::integer[] IS NULL OR (
                SELECT starts_with(e.type, left($4, -1)) FROM dispatcher.event AS e
                WHERE e.day BETWEEN $17 AND $18 AND e.day = g.midnight::date AND e.id = (
                    SELECT f.event_id FROM dispatcher.delivery_done AS f
                    WHERE f.day BETWEEN $17 AND $18 AND f.day = g.midnight::date AND f.id = d.id LIMIT 1)))
           AND ($6::smallint[] IS NULL OR state = ANY ($6))
           AND ($15::smallint[] IS NULL OR 2 = ANY ($15) OR state <> 3)
           AND ($15::smallint[] IS NULL OR state = 3 OR coalesce((
                SELECT ARRAY[coalesce(a.response_code / 100, 100 + a.outcome), a.response_code]::smallint[] FROM dispatcher.attempt AS a
                WHERE a.day BETWEEN $17 AND $18 AND a.day = g.midnight::date AND a.event_id = d.event_id
                  AND a.endpoint_no = d.endpoint_no
                ORDER BY a.attempt_number DESC LIMIT 1),
                ARRAY[coalesce(d.response_code / 100, 100 + d.outcome), d.response_code]::smallint[]) && $15)
           AND ($7::boolean IS NULL OR test = $7)
           AND ($9::uuid IS NULL OR id >= $9 AND day >= $11::date)
           AND ($10::uuid IS NULL OR id < $10 AND day <= $12::date)
           AND ($8::text IS NULL OR (
                SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
                AND e.day = g.midnight::date AND e.id = d.event_id) @> $8::jsonb)
           AND ($14::text IS NULL OR (
                SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
                AND e.day = g.midnight::date AND e.id = d.event_id) @? $14::jsonpath)
         ORDER BY id DESC
         LIMIT $13) AS l
     ORDER BY g.place
     LIMIT $13)
)
SELECT id, day, is_open FROM page ORDER BY id DESC LIMIT $13
