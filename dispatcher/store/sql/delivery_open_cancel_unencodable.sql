-- Cancels waiting deliveries whose event does not fit the profile's format, found out after fan-out.
--
-- Parameters: $1 delivery ids. Index: delivery_open_pkey. Locks: the rows moved.
WITH ended AS (
    DELETE FROM dispatcher.delivery_open WHERE id = ANY ($1::uuid[])
    RETURNING *
)
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position, finished_at,
     warnings)
SELECT id, day, event_id, endpoint_no, event_type_code, 5 /* cancelled */, 8 /* unencodable_event */, attempt_count,
       schedule_position, clock_timestamp(), warnings
FROM ended
