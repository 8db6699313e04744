-- The next due deliveries of an endpoint that is pulled, locked, with what a lease keeps of them.
--
-- Parameters: $1 number of the endpoint, $2 rows at most. Two polls at a time get different rows (SKIP LOCKED). An expired
-- lease that is not recorded yet keeps its delivery.
-- Index: endpoint_number_key, delivery_open_due, pull_lease_pkey. Locks: the rows.
SELECT o.id, o.day, o.event_id, o.attempt_count, o.schedule_position,
       (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state, NULL::smallint AS reason,
       (CASE WHEN o.is_replay THEN 3 ELSE 1 END)::smallint AS trigger
FROM dispatcher.delivery_open AS o
WHERE o.endpoint_no = $1 AND o.next_attempt_at <= statement_timestamp()
  AND EXISTS (SELECT FROM dispatcher.endpoint AS p
              WHERE p.number = $1 AND p.state = 'active' AND p.delivery = 'pull' AND p.deleted_at IS NULL)
  AND NOT EXISTS (SELECT FROM dispatcher.pull_lease AS l WHERE l.delivery_id = o.id)
ORDER BY o.next_attempt_at, o.id
LIMIT $2
FOR UPDATE OF o SKIP LOCKED
