-- Ends waiting deliveries at a person's request, and requests that their dispatchers drop them. Returns the ids.
--
-- Parameters: $1 delivery ids, $2 who asks. Index: delivery_open_pkey, delivery_request_pkey, endpoint_request_pkey.
-- Locks: the rows; one that a recorder holds is skipped, and cancelled if it is tried again and still waits.
WITH picked AS MATERIALIZED (
    SELECT id FROM dispatcher.delivery_open WHERE id = ANY ($1::uuid[])
    FOR UPDATE SKIP LOCKED
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position,
         finished_at, warnings)
    SELECT id, day, event_id, endpoint_no, event_type_code, 5 /* cancelled */, 4 /* cancelled_by_person */,
           attempt_count, schedule_position, clock_timestamp(), warnings
    FROM ended
), unasked AS (
    DELETE FROM dispatcher.delivery_request AS r USING ended WHERE r.delivery_id = ended.id AND r.kind = 'resend'
), asked AS (
    INSERT INTO dispatcher.endpoint_request (endpoint_no, kind, requested_by)
    SELECT DISTINCT endpoint_no, 'reload', $2 FROM ended ORDER BY endpoint_no
    ON CONFLICT (endpoint_no, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
)
SELECT id FROM ended
