-- How long until the next delivery of an endpoint is due; NULL: none waits. Negative: one is due already.
--
-- Parameters: $1 number of the endpoint. Index: delivery_open_due, pull_lease_pkey. Locks: none. A delivery with a lease is
-- due when the lease ends.
SELECT extract(epoch FROM o.next_attempt_at - clock_timestamp())::float8 AS seconds
FROM dispatcher.delivery_open AS o
WHERE o.endpoint_no = $1
ORDER BY o.next_attempt_at, o.id
LIMIT 1
