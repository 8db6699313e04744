-- Cancels waiting deliveries whose event does not fit the profile's format, found out after fan-out.
--
-- Parameters: $1 delivery ids. Index: delivery_open_pkey. Locks: the rows moved.
WITH ended AS (
    DELETE FROM dispatcher.delivery_open WHERE id = ANY ($1::text[])
    RETURNING *
)
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
     schedule_position, created_at, finished_at, warnings)
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', 'unencodable_event',
       attempt_count, schedule_position, created_at, clock_timestamp(), warnings
FROM ended
