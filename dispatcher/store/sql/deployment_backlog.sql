-- The current backlog, the states of the endpoints, and the number of dispatchers that are alive.
--
-- Parameters: $1 tenant (NULL: all), $2 count at most (a larger count is returned as this plus one), $3 the lowest id that
--   a delivery created in the last 24 hours has, $4 the day before yesterday: a constant, since now() would lock every day
--   of history; $5 the day from which failed deliveries are counted.
-- Index: outbox_waiting, delivery_open_due, delivery_open_line, delivery_done_unsuccessful, delivery_done_failed, endpoint_name. Locks: none.
-- The oldest due delivery is searched as in deployment_gauges.sql: one that waits for its schedule, for an earlier one of
-- its line, for a breaker, for a paused endpoint or for its receiver to poll is not late.
WITH mine AS MATERIALIZED (
    SELECT e.id, e.number, e.state, e.ordering, e.delivery, EXISTS (
               SELECT FROM dispatcher.endpoint_breaker AS b
               JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp()
               WHERE b.endpoint_id = e.id) AS is_deferred
    FROM dispatcher.endpoint AS e
    WHERE e.deleted_at IS NULL AND ($1::text IS NULL OR e.tenant = $1)
), mine_all AS (
    SELECT number FROM dispatcher.endpoint WHERE tenant = $1
)
SELECT (SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()) AS dispatchers_alive,
       (SELECT count(*) FROM mine WHERE state = 'active') AS active_count,
       (SELECT count(*) FROM mine WHERE state = 'paused') AS paused_count,
       (SELECT count(*) FROM mine WHERE state = 'disabled') AS disabled_count,
       (SELECT count(*) FROM mine JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = mine.id
        WHERE mine.state = 'active' AND s.health = 'down') AS down_count,
       (SELECT count(*) FROM mine JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = mine.id
        WHERE mine.state = 'active' AND s.health = 'degraded') AS degraded_count,
       (SELECT count(*) FROM mine JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = mine.id
        WHERE mine.state = 'active' AND s.health = 'recovering') AS recovering_count,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.outbox
            WHERE consumed_at IS NULL AND ($1::text IS NULL OR tenant = $1) LIMIT $2 + 1) AS o) AS outbox_count,
       (SELECT extract(epoch FROM clock_timestamp() - inserted_at)::float8 FROM dispatcher.outbox
        WHERE consumed_at IS NULL AND ($1::text IS NULL OR tenant = $1) ORDER BY position LIMIT 1) AS outbox_seconds,
       (SELECT count(*) FROM (
            SELECT FROM mine JOIN dispatcher.delivery_open AS d ON d.endpoint_no = mine.number
            WHERE mine.state <> 'paused' LIMIT $2 + 1) AS w) AS pending_count,
       (SELECT count(*) FROM (
            SELECT FROM mine JOIN dispatcher.delivery_open AS d ON d.endpoint_no = mine.number
            WHERE mine.state = 'paused' LIMIT $2 + 1) AS h) AS held_count,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.delivery_done AS d
            WHERE d.state <> 3 AND d.state = 5 /* cancelled */ AND NOT d.test AND d.id >= $3::uuid
              AND d.day >= $4::date
              AND ($1::text IS NULL OR d.endpoint_no IN (SELECT number FROM mine_all)) LIMIT $2 + 1) AS c)
           AS cancelled_count,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.delivery_done AS d
            WHERE d.state = 4 /* failed */ AND NOT d.test AND d.day >= $5::date
              AND ($1::text IS NULL OR d.endpoint_no IN (SELECT number FROM mine_all)) LIMIT $2 + 1) AS f)
           AS failed_count,
       (SELECT max(extract(epoch FROM clock_timestamp() - oldest.next_attempt_at))::float8
        FROM mine
        CROSS JOIN LATERAL (
            SELECT o.next_attempt_at
            FROM (SELECT next_attempt_at, order_key, position FROM dispatcher.delivery_open
                  WHERE endpoint_no = mine.number ORDER BY next_attempt_at LIMIT 1000) AS o
            WHERE mine.ordering = 'none' OR o.order_key IS NULL
               OR o.position = (SELECT f.position FROM dispatcher.delivery_open AS f
                                WHERE f.endpoint_no = mine.number AND f.order_key = o.order_key ORDER BY f.position LIMIT 1)
            ORDER BY o.next_attempt_at
            LIMIT 1) AS oldest
        WHERE mine.state = 'active' AND mine.delivery = 'push' AND NOT mine.is_deferred) AS oldest_due_seconds
