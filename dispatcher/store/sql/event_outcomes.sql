-- How many deliveries of some events succeeded, failed, were cancelled or still wait.
--
-- Parameters, one element for each event: $1 days, $2 ids, $3 and $4 the lowest and highest id that its deliveries can have;
--   $5 deliveries of an event that are counted, of each table.
-- Index: a range of delivery_open_pkey, delivery_done_pkey of each event's day. Locks: none.
SELECT g.day, g.event_id, s.*
FROM unnest($1::date[], $2::text[], $3::uuid[], $4::uuid[]) AS g (day, event_id, low, high)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE d.state = 3) AS succeeded_count, count(*) FILTER (WHERE d.state = 4) AS failed_count,
           count(*) FILTER (WHERE d.state = 5) AS cancelled_count, count(*) FILTER (WHERE d.state <= 2) AS waiting_count
    FROM ((SELECT 1::smallint AS state
           FROM dispatcher.delivery_open AS o
           WHERE o.id BETWEEN g.low AND g.high AND o.event_id = g.event_id AND o.day = g.day
           LIMIT $5)
          UNION ALL
          (SELECT f.state
           FROM dispatcher.delivery_done AS f
           WHERE f.day = ANY ($1::date[]) AND f.day = g.day AND f.event_id = g.event_id
           LIMIT $5)) AS d
) AS s
