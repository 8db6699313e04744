-- A page of the deliveries of a few endpoints, newest first: open and ended ones, merged. For a tenant with few
-- endpoints among many deliveries, which deliveries_page would read past.
--
-- Parameters: as deliveries_page, but $1 the numbers of the endpoints; $2 is not used.
-- Index: delivery_done_by_endpoint of the days asked for, once for each endpoint, and delivery_open_due. Locks: none.
WITH page AS MATERIALIZED (
    SELECT p.id, p.day, p.is_open
    FROM unnest($1::integer[]) AS g (number)
    CROSS JOIN LATERAL (
        (SELECT id, day, true AS is_open
         FROM dispatcher.delivery_open AS d
         WHERE day BETWEEN $17::date AND $18::date AND endpoint_no = g.number AND $2::text IS NULL
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
        (SELECT id, day, false
         FROM dispatcher.delivery_done AS d
         WHERE day BETWEEN $17::date AND $18::date AND endpoint_no = g.number
           AND ($3::text IS NULL OR event_id = $3)
           AND ($5::integer IS NULL OR event_type_code = $5)
       AND ($16::integer[] IS NULL OR event_type_code NOT IN (SELECT unnest($16)))
       AND ($5::integer IS NULL OR (
            SELECT e.type = $4 FROM dispatcher.event AS e
            WHERE e.day BETWEEN $17 AND $18 AND e.day = d.day AND e.id = d.event_id))
       AND ($16::integer[] IS NULL OR (
            SELECT starts_with(e.type, left($4, -1)) FROM dispatcher.event AS e
            WHERE e.day BETWEEN $17 AND $18 AND e.day = d.day AND e.id = (
                SELECT f.event_id FROM dispatcher.delivery_done AS f
                WHERE f.day BETWEEN $17 AND $18 AND f.day = d.day AND f.id = d.id LIMIT 1)))
           AND ($6::smallint[] IS NULL OR state = ANY ($6))
       AND ($15::smallint[] IS NULL OR 2 = ANY ($15) OR state <> 3)
       AND ($15::smallint[] IS NULL OR state = 3 OR coalesce((
            SELECT ARRAY[coalesce(a.response_code / 100, 100 + a.outcome), a.response_code]::smallint[] FROM dispatcher.attempt AS a
            WHERE a.day BETWEEN $17 AND $18 AND a.day = d.day AND a.event_id = d.event_id
              AND a.endpoint_no = d.endpoint_no
            ORDER BY a.attempt_number DESC LIMIT 1),
            ARRAY[coalesce(d.response_code / 100, 100 + d.outcome), d.response_code]::smallint[]) && $15)
           AND ($7::boolean IS NULL OR test = $7)
           AND ($9::uuid IS NULL OR id >= $9 AND day >= $11::date)
           AND ($10::uuid IS NULL OR id < $10 AND day <= $12::date)
           AND ($8::text IS NULL OR (
                SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
            AND e.day = d.day AND e.id = d.event_id) @> $8::jsonb)
           AND ($14::text IS NULL OR (
                SELECT e.labels FROM dispatcher.event AS e WHERE e.day BETWEEN $17 AND $18
            AND e.day = d.day AND e.id = d.event_id) @? $14::jsonpath)
         ORDER BY id DESC
         LIMIT $13)
    ) AS p
)
SELECT id, day, is_open FROM page ORDER BY id DESC LIMIT $13
