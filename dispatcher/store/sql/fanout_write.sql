-- Writes what fan-out made of claimed events: bodies, deliveries to make, deliveries that will not happen.
--
-- Parameters: $1 day of all rows, $2 when they were accepted;
--   bodies     $3 event ids, $4 profiles, $5 bytes;
--   deliveries $6 ids, $7 event ids, $8 endpoint ids, $9 event types, $10 tenants, $11 profiles,
--              $12 reason (NULL: to be delivered; else cancelled with it), $13 warnings joined by commas.
-- Locks: none but the new rows. In the claim's transaction: an event is consumed exactly when its deliveries exist.
WITH bodies AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes)
    SELECT $1, event_id, profile, bytes
    FROM unnest($3::text[], $4::text[], $5::bytea[]) AS b (event_id, profile, bytes)
), made AS MATERIALIZED (
    SELECT id, event_id, endpoint_id, event_type, tenant, profile, reason,
           coalesce(string_to_array(warnings, ','), '{}') AS warnings
    FROM unnest($6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
        AS d (id, event_id, endpoint_id, event_type, tenant, profile, reason, warnings)
), cancelled AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, $1, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', reason, 0, 0, $2, $2, warnings
    FROM made WHERE reason IS NOT NULL
)
INSERT INTO dispatcher.delivery_open
    (id, day, event_id, endpoint_id, event_type, tenant, profile, next_attempt_at, created_at, warnings)
SELECT id, $1, event_id, endpoint_id, event_type, tenant, profile, $2, $2, warnings
FROM made WHERE reason IS NULL
