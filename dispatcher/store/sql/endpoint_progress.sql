-- How the deliveries of some endpoints stand that were made since a moment. Parameters: $1 endpoint ids, $2 since.
-- Index: delivery_done_by_endpoint, delivery_open_due. Locks: none. For `dispatcher dev`, whose database is small.
SELECT endpoint_id, count(*) FILTER (WHERE state = 'succeeded') AS delivered,
       count(*) FILTER (WHERE state = 'pending') AS waiting,
       count(*) FILTER (WHERE state = 'retrying') AS retrying,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(attempt_count) AS attempts
FROM dispatcher.delivery
WHERE endpoint_id = ANY ($1::text[]) AND created_at >= $2
GROUP BY endpoint_id
