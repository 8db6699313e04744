-- Open deliveries whose time has come, read again with all that an attempt needs: memory holds only their ids.
--
-- Parameters: $1 delivery ids, $2 days, a few: only theirs are read, and only their partitions locked. Index: delivery_open_pkey, event_pkey, body_pkey. Locks: none.
-- Returns also how long until each is due by the database's clock: one that was moved meanwhile waits on.
-- LIMIT keeps the planner from joining the other way round, by all events of the days.
WITH waiting AS MATERIALIZED (
    SELECT o.* FROM unnest($1::text[]) AS w (id) JOIN dispatcher.delivery_open AS o ON o.id = w.id
)
SELECT o.id, o.day, o.event_id, o.event_type, o.endpoint_id, o.attempt_count, o.schedule_position, o.state,
       b.bytes AS body, greatest(least(e.inserted_at, '9999-01-01'), '1970-01-01') AS inserted_at, e.traceparent,
       extract(epoch FROM greatest(o.next_attempt_at, '1970-01-01') - clock_timestamp())::float8 AS due_in_seconds
FROM waiting AS o
CROSS JOIN LATERAL (
    SELECT f.inserted_at, f.traceparent FROM dispatcher.event AS f
    WHERE f.day = ANY ($2::date[]) AND f.day = o.day AND f.id = o.event_id
    LIMIT 1
) AS e
LEFT JOIN LATERAL (
    SELECT c.bytes FROM dispatcher.body AS c
    WHERE c.day = ANY ($2::date[]) AND c.day = o.day AND c.event_id = o.event_id AND c.profile = o.profile
    LIMIT 1
) AS b ON true
