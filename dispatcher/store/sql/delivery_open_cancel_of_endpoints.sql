-- Ends waiting deliveries of endpoints that will not send them: disabled, deleted, unusable; a slice at a time.
--
-- Parameters: $1 endpoint ids, $2 the codes of their reasons, $3 rows at most. Returns how many.
-- Index: endpoint_pkey, delivery_open_due. Locks: the rows moved; rows that a recorder holds are skipped and come next
-- time.
WITH picked AS MATERIALIZED (
    SELECT o.id, e.reason
    FROM unnest($1::text[], $2::smallint[]) AS e (endpoint_id, reason)
    JOIN dispatcher.endpoint AS p ON p.id = e.endpoint_id
    CROSS JOIN LATERAL (
        SELECT d.id FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_no = p.number LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS o
    LIMIT $3
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*, p.reason
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position,
         finished_at, warnings)
    SELECT id, day, event_id, endpoint_no, event_type_code, 5 /* cancelled */, reason, attempt_count,
           schedule_position, clock_timestamp(), warnings
    FROM ended
    RETURNING id
)
SELECT count(*) FROM kept
