-- The first deliveries of each of some lines; those that were shelved are due now.
--
-- Parameters: $1 number of the endpoint, $2 keys of the lines, $3 rows of each at most. Returns no row for a line that is empty.
-- Index: delivery_open_line, delivery_open_pkey. Locks: the rows that were shelved.
WITH first AS MATERIALIZED (
    SELECT o.id, o.next_attempt_at
    FROM unnest($2::bigint[]) AS w (order_key)
    CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_no = $1 AND d.order_key = w.order_key
        ORDER BY d.position
        LIMIT $3
    ) AS o
), woken AS (
    UPDATE dispatcher.delivery_open AS o SET next_attempt_at = statement_timestamp()
    FROM first AS f
    WHERE o.id = f.id AND f.next_attempt_at >= '9999-01-01 00:00:00+00' AND o.next_attempt_at >= '9999-01-01 00:00:00+00'
)
SELECT o.id, p.id AS endpoint_id,
       CASE WHEN o.next_attempt_at >= '9999-01-01 00:00:00+00' THEN 0
            ELSE extract(epoch FROM greatest(o.next_attempt_at, '1970-01-01') - clock_timestamp()) END::float8 AS due_in_seconds
FROM first AS o, dispatcher.endpoint AS p
WHERE p.number = $1
