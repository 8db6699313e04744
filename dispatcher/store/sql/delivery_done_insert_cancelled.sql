-- Inserts deliveries that will not happen: the endpoint is disabled, the event cannot be encoded.
--
-- Parameters: $1 day, $2 when they were accepted; one element each: $3 ids, $4 event ids, $5 numbers of the endpoints,
--   $6 codes of the event types, $7 codes of the reasons. Locks: none but the new rows.
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position, finished_at)
SELECT id, $1, event_id, endpoint_no, event_type_code, 5 /* cancelled */, reason, 0, 0, $2
FROM unnest($3::uuid[], $4::text[], $5::integer[], $6::integer[], $7::smallint[])
    AS d (id, event_id, endpoint_no, event_type_code, reason)
