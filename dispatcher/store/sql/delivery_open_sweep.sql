-- Brings back deliveries that were shelved and are first in their lines now; a slice of the lines at a time. Normally the
-- end of the one before does that. A crash between the two, or a cancellation of a delivery that was not in memory, leaves
-- it to this statement.
--
-- Parameters: $1 number of the endpoint, $2 the key after which the slice begins, $3 lines at most.
-- Returns the last key of the slice (NULL: there are no more) and how many deliveries were brought back. Without a delivery
-- that was shelved it reads one entry of an index.
-- Index: delivery_open_due, delivery_open_line, delivery_open_pkey. Locks: the rows that were shelved.
WITH RECURSIVE line AS (
    (SELECT d.order_key, 1 AS number
     FROM dispatcher.delivery_open AS d
     WHERE d.endpoint_no = $1 AND d.order_key > $2
       AND EXISTS (SELECT FROM dispatcher.delivery_open AS a WHERE a.endpoint_no = $1 AND a.next_attempt_at >= '9999-01-01 00:00:00+00')
     ORDER BY d.order_key
     LIMIT 1)
    UNION ALL
    SELECT (SELECT d.order_key FROM dispatcher.delivery_open AS d
            WHERE d.endpoint_no = $1 AND d.order_key > l.order_key
            ORDER BY d.order_key LIMIT 1), l.number + 1
    FROM line AS l
    WHERE l.order_key IS NOT NULL AND l.number < $3
), first AS MATERIALIZED (
    SELECT o.id, o.next_attempt_at
    FROM line AS l
    CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_no = $1 AND d.order_key = l.order_key
        ORDER BY d.position
        LIMIT 1
    ) AS o
    WHERE l.order_key IS NOT NULL
), woken AS (
    UPDATE dispatcher.delivery_open AS o SET next_attempt_at = statement_timestamp()
    FROM first AS f
    WHERE o.id = f.id AND f.next_attempt_at >= '9999-01-01 00:00:00+00' AND o.next_attempt_at >= '9999-01-01 00:00:00+00'
    RETURNING 1
)
SELECT (SELECT max(order_key) FROM line HAVING count(order_key) = $3) AS last_key, (SELECT count(*) FROM woken) AS woken_count
