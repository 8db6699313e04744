-- Open deliveries whose time has come, read again: memory holds only their ids. What history has of them is read by
-- events_load. `profile` is the key of the body; `earlier_profile` is that of a delivery that was attempted before its
-- endpoint had a mask, if it has no body of its own.
--
-- Parameters: $1 delivery ids. Index: delivery_open_pkey, endpoint_number_key. Locks: none.
-- Returns also how long until each is due by the database's clock: one that was moved meanwhile waits on.
SELECT o.id, o.day, o.event_id, p.id AS endpoint_id, CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS profile,
       CASE WHEN p.own_bodies AND o.attempt_count > 0 THEN p.profile END AS earlier_profile, o.attempt_count, o.schedule_position,
       coalesce(o.is_replay, false) AS is_replay,
       extract(epoch FROM greatest(o.next_attempt_at, '1970-01-01') - clock_timestamp())::float8 AS due_in_seconds
FROM unnest($1::uuid[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.delivery_open AS d WHERE d.id = w.id
    LIMIT 1  -- as in delivery_record.sql: also a plan from a nearly empty table reads by key
) AS o
JOIN dispatcher.endpoint AS p ON p.number = o.endpoint_no
