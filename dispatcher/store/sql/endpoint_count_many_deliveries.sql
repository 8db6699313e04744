-- Counts the waiting and the failed deliveries of some endpoints, endpoint by endpoint, however many have failed.
--
-- Parameters: $1 endpoint ids, $2 count at most (a larger count is returned as this plus one), $3 the day from which failed
--   deliveries are counted. Index: endpoint_pkey, delivery_open_due, delivery_done_failed. Locks: none.
SELECT e.id AS endpoint_id,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS d
                              WHERE d.endpoint_no = e.number LIMIT $2 + 1) AS w) AS waiting_count,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_done AS d
                              WHERE d.endpoint_no = e.number AND d.state = 4 /* failed */ AND NOT d.test
                                AND d.day >= $3::date LIMIT $2 + 1) AS f) AS failed_count
FROM dispatcher.endpoint AS e
WHERE e.id = ANY ($1::text[])
