-- Records which endpoints have been down without a success for as long as a threshold, and raises an event for each.
-- What is down is defined in endpoint_status_evaluate.sql.
--
-- Parameters: $1 thresholds in seconds. Returns id, threshold, and since when.
-- Driven by time: behind an open breaker no attempt is made that could trigger it (endpoint_warn.sql is triggered by a
-- failed attempt). The threshold and the event commit together, and the row's lock orders two replicas: one event for
-- each threshold of an outage, also across restarts. An outage that only the dispatcher's own events met raises none
-- (docs/adr/0013). Index: endpoint_health_pkey, endpoint_pkey, delivery_open_due; endpoint_health has failing
-- endpoints only.
-- Locks: the rows; one that a recorder holds is skipped and comes next time.
WITH picked AS MATERIALIZED (
    SELECT h.endpoint_id, s.response_code
    FROM dispatcher.endpoint_health AS h
    JOIN dispatcher.endpoint AS p ON p.id = h.endpoint_id AND p.state = 'active' AND p.deleted_at IS NULL
    JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = h.endpoint_id AND s.health = 'down'
    WHERE EXISTS (SELECT FROM unnest($1::integer[]) AS t (seconds)
                  WHERE t.seconds > h.down_seconds
                    AND h.first_failure_at <= clock_timestamp() - make_interval(secs => t.seconds))
    ORDER BY h.endpoint_id
    FOR UPDATE OF h SKIP LOCKED
), down AS (
    UPDATE dispatcher.endpoint_health AS h
    SET down_seconds = (SELECT max(t.seconds) FROM unnest($1::integer[]) AS t (seconds)
                        WHERE h.first_failure_at <= clock_timestamp() - make_interval(secs => t.seconds))
    FROM picked AS k
    JOIN dispatcher.endpoint AS p ON p.id = k.endpoint_id
    WHERE h.endpoint_id = k.endpoint_id
    RETURNING p.id, p.number, p.tenant, p.name, h.first_failure_at, h.down_seconds, h.by_producers, k.response_code
), raised AS (
    INSERT INTO dispatcher.outbox (operational, type, tenant, data)
    SELECT true, 'dispatcher.endpoint.failing', d.tenant, (
        SELECT row_to_json(r) FROM (
            SELECT d.id AS endpoint_id, d.name AS endpoint_name, 'down' AS reason,
                   to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
                   to_char(d.first_failure_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS failing_since,
                   NULL::integer AS percent, d.down_seconds,
                   (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS o
                                          WHERE o.endpoint_no = d.number LIMIT 10000) AS w) AS waiting_count,
                   d.response_code AS last_response_code) AS r)
    FROM down AS d
    WHERE d.by_producers
)
SELECT id, down_seconds, first_failure_at FROM down
