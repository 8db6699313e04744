-- The next deliveries of a job's filter, oldest first: examines a bounded number of rows behind the cursor and returns
-- those that fit, at most $5 of them.
--
-- Parameters: $1 the id that all are above, $2 the id that all are below, $3 and $4 the first and the last day, $5 rows at
--   most, $6 rows to examine; (NULL: any) $7 number of the endpoint, $8 codes of the states, $9 whether only deliveries that
--   failed or that the system cancelled, $10 tenant, $11 event type, or its beginning and `*`, and $12 its code, $13 labels (JSON text),
--   $14 event ids, $15 the earliest end, $16 kind of the job, $17 profiles,
--   $18 classes of the last response as in delivery_page, $19 delivery ids; a text that the event or the endpoint contains:
--   $20 to $24 as $5 to $9 of event_match, $25 the text itself.
-- Returns in each row how many rows were examined and the id of the last one; one row without a delivery if none fits.
-- `obstacle` is why a delivery cannot be sent.
-- Index: delivery_open_pkey; delivery_done_id, delivery_done_by_endpoint or delivery_done_unsuccessful (_by_endpoint) of the days;
-- then the rows themselves by their keys. Locks: none.
WITH near AS MATERIALIZED (
    (SELECT id, day, endpoint_no, event_type_code
     FROM dispatcher.delivery_open
     WHERE id > $1::uuid AND id < $2::uuid AND day BETWEEN $3::date AND $4::date
       AND ($8::smallint[] IS NULL OR 1 = ANY ($8) OR 2 = ANY ($8)) AND NOT $9::boolean
       AND ($19::uuid[] IS NULL OR id = ANY ($19))
     ORDER BY id
     LIMIT $6)
    UNION ALL
    (SELECT id, day, endpoint_no, event_type_code
     FROM dispatcher.delivery_done
     WHERE id > $1::uuid AND id < $2::uuid AND day BETWEEN $3::date AND $4::date
       AND ($7::integer IS NULL OR endpoint_no = $7)
       AND ($8::smallint[] IS NULL OR state = ANY ($8))
       AND ($18::smallint[] IS NULL OR 2 = ANY ($18) OR state <> 3)
       AND ($19::uuid[] IS NULL OR id = ANY ($19))
       AND (NOT $9::boolean OR state <> 3)
     ORDER BY id
     LIMIT $6)
), examined AS MATERIALIZED (
    SELECT id, day, endpoint_no, event_type_code FROM near ORDER BY id LIMIT $6
)
SELECT w.examined_count, w.last_id, f.*
FROM (SELECT (SELECT count(*) FROM examined) AS examined_count,
             (SELECT id FROM examined ORDER BY id DESC LIMIT 1) AS last_id) AS w
LEFT JOIN LATERAL (
    SELECT d.id, d.day, d.event_id, d.endpoint_no, d.event_type_code, d.state, e.type, e.tenant, e.inserted_at,
           e.labels::text AS labels,
           CASE WHEN p.deleted_at IS NOT NULL THEN 'endpoint_deleted'
                WHEN d.reason = 8 THEN 'unencodable_event'
                WHEN e.id IS NULL OR e.erased_at IS NOT NULL THEN 'event_erased'
                WHEN $16::text = 'replay' AND d.state <= 2 THEN 'already_waiting'
                WHEN $16::text = 'replay' AND p.state = 'disabled' THEN 'endpoint_disabled'
           END AS obstacle
    FROM examined AS x
    CROSS JOIN LATERAL (
        SELECT v.* FROM dispatcher.delivery_row AS v
        WHERE v.day BETWEEN $3 AND $4 AND v.id = x.id AND v.day = x.day LIMIT 1
    ) AS d
    JOIN dispatcher.endpoint AS p ON p.number = x.endpoint_no
    LEFT JOIN dispatcher.event AS e ON e.day BETWEEN $3 AND $4 AND e.day = d.day AND e.id = d.event_id
    WHERE NOT d.test
      AND ($7::integer IS NULL OR d.endpoint_no = $7)
      AND ($8::smallint[] IS NULL OR d.state = ANY ($8))
      AND (NOT $9::boolean OR d.state = 4 OR d.state = 5 AND d.reason IN (5, 7))
      AND ($10::text IS NULL OR p.tenant = $10)
      AND ($17::text[] IS NULL OR p.profile = ANY ($17))
      AND ($12::integer IS NULL OR d.event_type_code = $12)
      AND ($11::text IS NULL OR CASE WHEN right($11, 1) = '*' THEN starts_with(e.type, left($11, -1)) ELSE e.type = $11 END)
      AND ($18::smallint[] IS NULL OR d.state = 3 OR d.attempt_count > 0 AND (
           SELECT ARRAY[coalesce(a.response_code / 100, 100 + a.outcome), a.response_code]::smallint[] FROM dispatcher.attempt_row AS a
           WHERE a.day BETWEEN $3 AND $4 AND a.day = d.day AND a.event_id = d.event_id AND a.endpoint_no = d.endpoint_no
           ORDER BY a.attempt_number DESC LIMIT 1) && $18)
      AND ($13::text IS NULL OR e.labels @> $13::jsonb)
      AND ($14::text[] IS NULL OR d.event_id = ANY ($14))
      AND ($15::timestamptz IS NULL OR d.finished_at >= $15)
      AND ($23::text IS NULL OR p.id = $25::text OR p.name ~ $23 OR CASE
          WHEN e.labels @? $24::jsonpath THEN true
          WHEN (lower(e.id) LIKE ($22::text[])[1] OR e.type LIKE ($22::text[])[1]) AND (e.id ~ $23 OR e.type ~ $23) THEN true
          WHEN e.labels <> '{}' AND lower(e.labels::text COLLATE "C") LIKE ANY ($22::text[]) AND e.labels::text ~ $23 THEN true
          WHEN $20::bytea IS NOT NULL AND e.data IS NULL AND NOT ($21 AND position('\x5c75'::bytea IN e.bytes) > 0)
               AND position($20 IN e.bytes) = 0 THEN false
          WHEN lower(coalesce(e.data::text, convert_from(e.bytes, 'UTF8')) COLLATE "C") LIKE ANY ($22::text[])
          THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8')) ~ $23
          ELSE false END)
    ORDER BY d.id
    LIMIT $5
) AS f ON true
ORDER BY f.id
