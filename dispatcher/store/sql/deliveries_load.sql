-- Open deliveries whose time has come, read again with all that an attempt needs: memory holds only their ids.
--
-- Parameters: $1 delivery ids, $2 days, a few: only theirs are read, and only their partitions locked. Index: delivery_open_pkey, event_pkey, body_pkey. Locks: none.
-- Returns also how long until each is due by the database's clock: one that was moved meanwhile waits on.
SELECT o.id, o.day, o.event_id, o.event_type, o.endpoint_id, o.attempt_count, o.schedule_position, o.state,
       b.bytes AS body, e.inserted_at, e.traceparent,
       extract(epoch FROM o.next_attempt_at - clock_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS w (id)
JOIN dispatcher.delivery_open AS o ON o.id = w.id
JOIN dispatcher.event AS e ON e.day = ANY ($2::date[]) AND e.day = o.day AND e.id = o.event_id
LEFT JOIN dispatcher.body AS b ON b.day = ANY ($2::date[]) AND b.day = o.day AND b.event_id = o.event_id AND b.profile = o.profile
