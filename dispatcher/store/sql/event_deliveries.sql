-- The deliveries of one event. Parameters: $1 event id, $2 its day, $3 rows at most.
-- Index: delivery_open_event_endpoint, delivery_done_event_endpoint of that day. Locks: none.
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test, attempt_count,
       schedule_position, next_attempt_at, created_at, finished_at, warnings
FROM dispatcher.delivery
WHERE event_id = $1 AND day = $2
ORDER BY endpoint_id
LIMIT $3
