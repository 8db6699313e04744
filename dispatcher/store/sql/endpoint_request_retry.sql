-- Requests that everything that waits for an endpoint is sent, beginning with the delivery that has been due longest: its
-- attempt decides. Returns that delivery, or no row where none waits.
--
-- Parameters: $1 endpoint id, $2 who asks, $3 codes of event types that are not picked. A request that waits is replaced by this one.
-- Index: endpoint_pkey, delivery_open_due, delivery_open_line, delivery_request_pkey, endpoint_request_pkey. Locks: the rows.
WITH picked AS MATERIALIZED (
    SELECT d.id, d.day, d.event_id, d.event_type_code, p.number
    FROM dispatcher.endpoint AS p
    CROSS JOIN LATERAL (
        SELECT o.id, o.day, o.event_id, o.event_type_code FROM dispatcher.delivery_open AS o
        WHERE o.endpoint_no = p.number AND o.event_type_code <> ALL ($3::integer[])
          AND (o.order_key IS NULL OR NOT EXISTS (
              SELECT FROM dispatcher.delivery_open AS b
              WHERE b.endpoint_no = o.endpoint_no AND b.order_key = o.order_key AND b.position < o.position))
        ORDER BY o.next_attempt_at, o.id
        LIMIT 1
    ) AS d
    WHERE p.id = $1 AND p.deleted_at IS NULL
), resend AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT id, 'resend', day, event_id, number, $2 FROM picked
    ON CONFLICT (delivery_id, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
), retry AS (
    INSERT INTO dispatcher.endpoint_request (endpoint_no, kind, requested_by, delivery_id, day, event_id)
    SELECT number, 'retry', $2, id, day, event_id FROM picked
    ON CONFLICT (endpoint_no, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by, delivery_id = excluded.delivery_id,
        day = excluded.day, event_id = excluded.event_id
    RETURNING requested_at
)
SELECT picked.number AS endpoint_no, retry.requested_at, picked.id AS delivery_id, picked.day, picked.event_id,
       picked.event_type_code
FROM picked, retry
