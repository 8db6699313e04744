-- Counts the waiting deliveries of some endpoints, with the time since when the oldest of them is due.
--
-- Parameters: $1 endpoint ids, $2 tenant (NULL: any), $3 count at most (a larger count is returned as this plus one).
-- Index: delivery_open_due, from each endpoint's first due one. Locks: none.
SELECT e.id, w.waiting_count, w.retrying_count, w.oldest_due_at
FROM dispatcher.endpoint AS e
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting_count, count(*) FILTER (WHERE first.attempt_count > 0) AS retrying_count,
           min(first.next_attempt_at) AS oldest_due_at
    FROM (SELECT d.attempt_count, d.next_attempt_at FROM dispatcher.delivery_open AS d
          WHERE d.endpoint_no = e.number ORDER BY d.next_attempt_at LIMIT $3 + 1) AS first
) AS w
WHERE e.id = ANY ($1::text[]) AND ($2::text IS NULL OR e.tenant = $2)
