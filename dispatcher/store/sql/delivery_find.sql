-- One delivery, open or ended.
--
-- Parameters: $1 id, $2 its day, $3 tenant (NULL: any).
-- Index: delivery_open_pkey, delivery_done_id of that day; endpoint_number_key, event_pkey. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM dispatcher.delivery_row AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
JOIN dispatcher.event AS e ON e.day = d.day AND e.id = d.event_id
WHERE d.id = $1::uuid AND d.day = $2 AND ($3::text IS NULL OR p.tenant = $3)
LIMIT 1
