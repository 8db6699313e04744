-- The next due deliveries of each of many endpoints: what boot, refills and the moving horizon load.
--
-- Parameters: $1 endpoint ids, $2 rows at most an endpoint, $3 seconds ahead of now.
-- Returns ids and seconds until due (negative: overdue), nearest first within an endpoint; no bodies.
-- Index: endpoint_pkey, delivery_open_due. Locks: none.
SELECT o.id, p.id AS endpoint_id, extract(epoch FROM greatest(o.next_attempt_at, '1970-01-01') - clock_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS e (endpoint_id)
JOIN dispatcher.endpoint AS p ON p.id = e.endpoint_id
CROSS JOIN LATERAL (
    SELECT d.id, d.next_attempt_at
    FROM dispatcher.delivery_open AS d
    WHERE d.endpoint_no = p.number
      AND d.next_attempt_at < statement_timestamp() + make_interval(secs => $3::float8)
    ORDER BY d.next_attempt_at, d.id
    LIMIT $2
) AS o
