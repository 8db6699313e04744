-- How the deliveries of some endpoints stand that were created since a moment. Parameters: $1 endpoint ids, $2 the
-- lowest id of such deliveries, $3 its day.
-- Index: delivery_done_by_endpoint of the days since, delivery_open_due. Locks: none. For `dispatcher dev`. Planned for
-- these values, so that no partition of earlier days is locked.
SELECT p.id AS endpoint_id, count(*) FILTER (WHERE d.state = 3) AS delivered,
       count(*) FILTER (WHERE d.state = 1) AS waiting,
       count(*) FILTER (WHERE d.state = 2) AS retrying,
       count(*) FILTER (WHERE d.state = 4) AS failed,
       count(*) FILTER (WHERE d.state = 5) AS cancelled,
       sum(d.attempt_count) AS attempts
FROM dispatcher.endpoint AS p
JOIN dispatcher.delivery_row AS d ON d.endpoint_no = p.number AND d.id >= $2::uuid AND d.day >= $3::date
WHERE p.id = ANY ($1::text[])
GROUP BY p.id
