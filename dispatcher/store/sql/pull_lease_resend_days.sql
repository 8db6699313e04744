-- The days of the deliveries of an endpoint that people want to be sent again, those of the oldest requests first.
--
-- Parameters: $1 number of the endpoint, $2 days at most. Index: none, the table is small. Locks: none.
SELECT r.day
FROM dispatcher.delivery_request AS r
WHERE r.kind = 'resend' AND r.endpoint_no = $1
GROUP BY r.day
ORDER BY min(r.requested_at)
LIMIT $2
