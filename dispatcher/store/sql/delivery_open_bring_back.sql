-- Makes deliveries due that were shelved while their endpoint had an order, and that has none now; a slice at a time.
--
-- Parameters: $1 number of the endpoint, $2 rows at most. Returns how many; fewer than $2: no more are shelved.
-- Index: endpoint_number_key, delivery_open_due. Locks: the rows.
WITH picked AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = $1 AND o.next_attempt_at >= '9999-01-01 00:00:00+00'
      AND EXISTS (SELECT FROM dispatcher.endpoint AS p WHERE p.number = $1 AND p.ordering = 'none')
    ORDER BY o.next_attempt_at, o.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), back AS (
    UPDATE dispatcher.delivery_open AS o SET next_attempt_at = statement_timestamp()
    FROM picked AS p WHERE o.id = p.id
    RETURNING 1
)
SELECT count(*) FROM back
