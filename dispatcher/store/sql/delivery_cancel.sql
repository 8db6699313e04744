-- Ends an open delivery at a person's request, and requests that its dispatcher drop it. Returns no row if the delivery
-- had already ended.
--
-- Parameters: $1 delivery id, $2 who. Index: delivery_open_pkey, delivery_request_pkey. Locks: the rows.
WITH ended AS (
    DELETE FROM dispatcher.delivery_open WHERE id = $1::uuid RETURNING *
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
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT id, 'cancel', day, event_id, endpoint_no, $2 FROM ended
    ON CONFLICT (delivery_id, kind) DO NOTHING
)
SELECT id FROM ended
