-- Ends deliveries that a paused endpoint has held for too long; a slice at a time.
--
-- Parameters: $1 seconds they may wait since the pause or their creation, the later; $2 rows at most; $3 the id that
--   a delivery created so long ago has at most. Returns how many.
-- Index: delivery_open_due. Locks: the rows moved.
WITH picked AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.endpoint AS p
    CROSS JOIN LATERAL (
        SELECT d.id FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_no = p.number AND d.id < $3::uuid
        LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE p.state = 'paused' AND p.paused_at < clock_timestamp() - make_interval(secs => $1::float8)
    LIMIT $2
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position,
         finished_at, warnings)
    SELECT id, day, event_id, endpoint_no, event_type_code, 5 /* cancelled */, 7 /* paused_too_long */,
           attempt_count, schedule_position, clock_timestamp(), warnings
    FROM ended
    RETURNING id
)
SELECT count(*) FROM kept
