-- Writes deliveries that will not happen: the endpoint is disabled, the event cannot be encoded.
--
-- Parameters: $1 day, $2 when they were accepted; one element each: $3 ids, $4 event ids, $5 endpoint ids,
--   $6 event types, $7 tenants, $8 profiles, $9 reasons. Locks: none but the new rows.
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
     schedule_position, created_at, finished_at)
SELECT id, $1, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', reason, 0, 0, $2, $2
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
    AS d (id, event_id, endpoint_id, event_type, tenant, profile, reason)
