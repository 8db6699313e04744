-- The deliveries of some ids of a few days, newest first: the rows of a page whose ids were picked before.
--
-- Parameters: $1 ids, $2 and $3 the first and the last of their days.
-- Planned for these days alone. It takes half as long as delivery_list_of_ids, which looks up each id in its own day;
-- over a month it would look up each id in every day.
-- Index: delivery_open_pkey, delivery_done_id, event_pkey of these days, endpoint_number. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM dispatcher.delivery_row AS d
LEFT JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
LEFT JOIN dispatcher.event AS e ON e.day BETWEEN $2 AND $3 AND e.day = d.day AND e.id = d.event_id
WHERE d.day BETWEEN $2::date AND $3::date AND d.id = ANY ($1::uuid[])
ORDER BY d.id DESC
