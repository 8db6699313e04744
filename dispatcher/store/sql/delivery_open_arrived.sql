-- Deliveries that became due recently: another replica may have made them for endpoints of ours.
--
-- Parameters: $1 endpoint ids, $2 rows at most an endpoint, $3 seconds to look back.
-- Returns ids and seconds until due (never positive), nearest first within an endpoint; no bodies.
-- Index: endpoint_pkey, delivery_open_due. Locks: none. The lower bound keeps it from reading the same backlog every
-- second.
SELECT o.id, p.id AS endpoint_id, extract(epoch FROM o.next_attempt_at - statement_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS e (endpoint_id)
JOIN dispatcher.endpoint AS p ON p.id = e.endpoint_id
CROSS JOIN LATERAL (
    SELECT d.id, d.next_attempt_at
    FROM dispatcher.delivery_open AS d
    WHERE d.endpoint_no = p.number
      AND d.next_attempt_at BETWEEN statement_timestamp() - make_interval(secs => $3) AND statement_timestamp()
    ORDER BY d.next_attempt_at, d.id
    LIMIT $2
) AS o
