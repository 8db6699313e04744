-- The figures that are of the whole database, for /metrics: read at most once in some seconds, for all scrapes.
--
-- Parameters: $1 how many endpoints that are down are named at most.
-- Index: delivery_open_due, delivery_open_line, outbox_waiting. Locks: none.
-- The oldest due delivery is looked for per active endpoint, so that a backlog of paused ones costs nothing; endpoints
-- whose open breaker a living replica has published are left out, by every replica alike. Of an endpoint with an order it
-- is the oldest one that is the first of its line, among the 1,000 that are due first: the others wait for the first.
-- Days ahead: attached partitions, from today on; stops counting where any of the four tables lacks one. -1: today's is missing.
-- The notification queue is the whole server's: read from shared memory, so any role may and it costs nothing.
-- Counts above 100,000 are the planner's estimate: exact counting would read every waiting row at each scrape.
WITH deferred AS MATERIALIZED (
    SELECT b.endpoint_id
    FROM dispatcher.endpoint_breaker AS b
    JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp()
), down AS MATERIALIZED (
    SELECT p.tenant, p.id, p.name, s.since
    FROM dispatcher.endpoint_status AS s
    JOIN dispatcher.endpoint AS p ON p.id = s.endpoint_id AND p.state = 'active' AND p.deleted_at IS NULL
    WHERE s.health = 'down'
), due AS MATERIALIZED (
    SELECT p.id, p.delivery, extract(epoch FROM clock_timestamp() - d.next_attempt_at)::float8 AS age_seconds
    FROM dispatcher.endpoint AS p
    CROSS JOIN LATERAL (
        SELECT o.next_attempt_at
        FROM (SELECT next_attempt_at, order_key, position FROM dispatcher.delivery_open
              WHERE endpoint_no = p.number ORDER BY next_attempt_at LIMIT 1000) AS o
        WHERE p.ordering = 'none' OR o.order_key IS NULL
           OR o.position = (SELECT f.position FROM dispatcher.delivery_open AS f
                            WHERE f.endpoint_no = p.number AND f.order_key = o.order_key ORDER BY f.position LIMIT 1)
        ORDER BY o.next_attempt_at
        LIMIT 1) AS d
    WHERE p.deleted_at IS NULL AND p.state = 'active'
      AND NOT EXISTS (SELECT FROM deferred WHERE deferred.endpoint_id = p.id)
)
SELECT (SELECT count(*) FROM (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL LIMIT 100000) AS o)
           AS outbox_backlog_events,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - o.inserted_at)
                 FROM dispatcher.outbox AS o WHERE o.consumed_at IS NULL ORDER BY o.position LIMIT 1), 0)::float8
           AS outbox_lag_seconds,
       (SELECT CASE WHEN c.reltuples > 100000 THEN c.reltuples::bigint
                    ELSE (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open LIMIT 100000) AS d) END
        FROM pg_class AS c WHERE c.oid = 'dispatcher.delivery_open'::regclass) AS pending_deliveries,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.endpoint AS p JOIN dispatcher.delivery_open AS d ON d.endpoint_no = p.number
            WHERE p.state = 'paused' LIMIT 100000) AS h) AS held_deliveries,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.delivery_open WHERE schedule_position > 0 LIMIT 100000) AS r) AS retries_scheduled,
       ARRAY(SELECT id FROM due WHERE delivery = 'push' ORDER BY id) AS due_endpoints,
       ARRAY(SELECT age_seconds FROM due WHERE delivery = 'push' ORDER BY id) AS due_ages_seconds,
       coalesce((SELECT max(age_seconds) FROM due WHERE delivery = 'pull'), 0)::float8 AS oldest_unpolled_seconds,
       coalesce((SELECT max(extract(epoch FROM clock_timestamp() - d.next_attempt_at))
                 FROM deferred
                 JOIN dispatcher.endpoint AS p ON p.id = deferred.endpoint_id AND p.deleted_at IS NULL
                                                  AND p.state = 'active'
                 CROSS JOIN LATERAL (SELECT next_attempt_at FROM dispatcher.delivery_open AS o
                                     WHERE o.endpoint_no = p.number ORDER BY o.next_attempt_at LIMIT 1) AS d), 0)::float8
           AS oldest_deferred_seconds,
       (SELECT json_object_agg(health, count)::text FROM (
            SELECT coalesce(s.health, 'healthy') AS health, count(*) AS count
            FROM dispatcher.endpoint AS p LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = p.id
            WHERE p.state = 'active' AND p.deleted_at IS NULL GROUP BY 1) AS h) AS endpoints_by_health,
       coalesce((SELECT max(extract(epoch FROM clock_timestamp() - since)) FROM down), 0)::float8
           AS longest_down_seconds,
       (SELECT json_agg(json_build_array(d.tenant, d.id, d.name, extract(epoch FROM clock_timestamp() - d.since)))::text
        FROM (SELECT * FROM down ORDER BY since, id LIMIT $1) AS d) AS endpoints_down,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'active' AND deleted_at IS NULL) AS active,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'paused' AND deleted_at IS NULL) AS paused,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'disabled' AND deleted_at IS NULL) AS disabled,
       (SELECT count(*) / 4 - 1 FROM (
            SELECT bool_and(EXISTS (
                       SELECT FROM pg_inherits AS i JOIN pg_class AS part ON part.oid = i.inhrelid
                       WHERE i.inhparent = to_regclass('dispatcher.' || parent)
                         AND part.relname = parent || to_char(day, '_YYYYMMDD')))
                       OVER (ORDER BY day) AS ready
            FROM generate_series(0, 60) AS ahead
            CROSS JOIN LATERAL (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + ahead AS day) AS d
            CROSS JOIN unnest(ARRAY['event', 'body', 'delivery_done', 'attempt']) AS parent) AS p
        WHERE ready) AS history_partitions_ahead,
       (SELECT json_object_agg(s.relname, s.n_dead_tup)::text FROM pg_stat_user_tables AS s
        WHERE s.schemaname = 'dispatcher' AND s.relname IN ('outbox', 'delivery_open')) AS dead_rows,
       pg_notification_queue_usage() AS notify_queue_usage,
       clock_timestamp() AS now
