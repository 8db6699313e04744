-- Raises an event for an endpoint that keeps failing, once per threshold of the time after which it is disabled.
--
-- Parameters: $1 endpoint id, $2 the threshold that is passed, in percent. Returns the id if the threshold is new.
-- The threshold and the event commit together. The row lock serializes two replicas, so that each threshold raises one
-- event.
-- Index: endpoint_health_pkey, endpoint_pkey, endpoint_status_pkey, delivery_open_due. Locks: the row.
WITH warned AS (
    UPDATE dispatcher.endpoint_health AS h
    SET warned_percent = $2
    FROM dispatcher.endpoint AS p
    WHERE h.endpoint_id = $1 AND h.warned_percent < $2 AND p.id = h.endpoint_id AND p.deleted_at IS NULL
      AND p.state <> 'disabled'
    RETURNING p.id, p.number, p.tenant, p.name, h.first_failure_at, h.warned_percent
), raised AS (
    INSERT INTO dispatcher.outbox (operational, type, tenant, data)
    SELECT true, 'dispatcher.endpoint.failing', w.tenant, (
        SELECT row_to_json(r) FROM (
            SELECT w.id AS endpoint_id, w.name AS endpoint_name, 'failing_too_long' AS reason,
                   to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
                   to_char(w.first_failure_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS failing_since,
                   w.warned_percent AS percent, NULL::integer AS down_seconds,
                   (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS o
                                          WHERE o.endpoint_no = w.number LIMIT 10000) AS o) AS waiting_count,
                   (SELECT s.response_code FROM dispatcher.endpoint_status AS s
                    WHERE s.endpoint_id = w.id) AS last_response_code) AS r)
    FROM warned AS w
)
SELECT id FROM warned
