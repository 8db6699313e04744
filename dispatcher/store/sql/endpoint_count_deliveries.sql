-- Counts the waiting deliveries of some endpoints, and all their failed ones in one pass.
--
-- Parameters: $1 endpoint ids, $2 count at most (a larger count is returned as this plus one), $3 failed deliveries read at
--   most, $4 the day from which they are counted.
-- Returns also how many failed deliveries were read: if as many as $3, counts are too low, and endpoint_count_many_deliveries
-- is right. That one looks for each endpoint in each day, which takes twice as long where few deliveries failed.
-- Index: endpoint_pkey, delivery_open_due, delivery_done_failed. Locks: none.
WITH given AS MATERIALIZED (
    SELECT id, number FROM dispatcher.endpoint WHERE id = ANY ($1::text[])
), failed AS MATERIALIZED (
    SELECT d.endpoint_no
    FROM dispatcher.delivery_done AS d
    WHERE d.endpoint_no = ANY (ARRAY(SELECT number FROM given)) AND d.state = 4 /* failed */ AND NOT d.test
      AND d.day >= $4::date
    LIMIT $3
), counted AS (
    SELECT endpoint_no, count(*) AS count FROM failed GROUP BY endpoint_no
)
SELECT g.id AS endpoint_id,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS d
                              WHERE d.endpoint_no = g.number LIMIT $2 + 1) AS w) AS waiting_count,
       least(coalesce(c.count, 0), $2 + 1) AS failed_count,
       (SELECT count(*) FROM failed) AS failed_read
FROM given AS g LEFT JOIN counted AS c ON c.endpoint_no = g.number
