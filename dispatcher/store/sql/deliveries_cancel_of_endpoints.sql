-- Ends waiting deliveries of endpoints that will not send them: disabled, deleted, unusable; a slice at a time.
--
-- Parameters: $1 endpoint ids, $2 their reasons, $3 rows at most. Returns how many.
-- Index: delivery_open_due. Locks: the rows moved; rows that a recorder holds are skipped and come next time.
WITH picked AS MATERIALIZED (
    SELECT o.id, e.reason
    FROM unnest($1::text[], $2::text[]) AS e (endpoint_id, reason)
    CROSS JOIN LATERAL (
        SELECT d.id FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_id = e.endpoint_id LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS o
    LIMIT $3
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*, p.reason
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', reason, attempt_count,
           schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
    RETURNING id
)
SELECT count(*) FROM kept
