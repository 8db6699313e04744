-- The deliveries of one event. Parameters: $1 event id, $2 its day, $3 rows at most, $4 and $5 the lowest and highest
-- id that they can have.
-- Index: a range of delivery_open_pkey, delivery_done_pkey of that day. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM (
    SELECT o.id, o.day, o.event_id, o.endpoint_no,
           (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state, NULL::smallint AS reason,
           false AS test, o.attempt_count, o.schedule_position, o.next_attempt_at, NULL::timestamptz AS finished_at,
           o.warnings
    FROM dispatcher.delivery_open AS o
    WHERE o.id BETWEEN $4::uuid AND $5::uuid AND o.event_id = $1 AND o.day = $2
    UNION ALL
    SELECT f.id, f.day, f.event_id, f.endpoint_no, f.state, f.reason, f.test, f.attempt_count, f.schedule_position,
           NULL, f.finished_at, f.warnings
    FROM dispatcher.delivery_done AS f
    WHERE f.event_id = $1 AND f.day = $2
) AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
JOIN dispatcher.event AS e ON e.day = $2 AND e.id = $1
ORDER BY p.id
LIMIT $3
