-- Changes the due times of waiting deliveries, and requests that their dispatchers read the schedules again.
--
-- Parameters: $1 delivery ids, $2 the new due time (NULL: relative), $3 seconds to postpone each, from its due time or from
--   now, the later (NULL, with $2: make it due now, unless it is), $4 who asks. Returns the ids that were moved.
-- Index: delivery_open_pkey, endpoint_request_pkey. Locks: the rows; one that a recorder holds is skipped, and moved if it
-- is tried again.
WITH picked AS MATERIALIZED (
    SELECT id FROM dispatcher.delivery_open WHERE id = ANY ($1::uuid[])
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE dispatcher.delivery_open AS o
    SET next_attempt_at = CASE
        WHEN $2::timestamptz IS NOT NULL THEN $2
        WHEN $3::float8 IS NOT NULL
            THEN greatest(o.next_attempt_at, clock_timestamp()) + make_interval(secs => $3)
        ELSE least(o.next_attempt_at, clock_timestamp()) END
    FROM picked AS p
    WHERE o.id = p.id
    RETURNING o.id, o.endpoint_no
), asked AS (
    INSERT INTO dispatcher.endpoint_request (endpoint_no, kind, requested_by)
    SELECT DISTINCT endpoint_no, 'reload', $4 FROM moved ORDER BY endpoint_no
    ON CONFLICT (endpoint_no, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
)
SELECT id FROM moved
