-- Creates the deliveries of some events to an endpoint that had none of them, due now. Returns how many.
--
-- Parameters, one element each: $1 delivery ids, $2 days, $3 event ids, $4 codes of the event types; $5 id of the
--   endpoint, $6 id of the job; $7 the days, each once.
-- Their bodies are made when they are loaded (late_bodies.py). Left out: events that were erased, days whose
-- history of deliveries has been dropped, and everything if the endpoint is deleted or disabled.
-- Index: endpoint_pkey, event_pkey, delivery_done_pkey, delivery_open_pkey. Locks: FOR SHARE on the endpoint and on the
-- events, against their erasure; the new rows.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::integer[])
        AS g (delivery_id, day, event_id, event_type_code)
), alive AS MATERIALIZED (
    SELECT number, ordering FROM dispatcher.endpoint WHERE id = $5 AND deleted_at IS NULL AND state <> 'disabled' FOR SHARE
), living AS MATERIALIZED (
    SELECT e.day, e.id, e.position, e.ordering_key FROM dispatcher.event AS e
    WHERE e.day = ANY ($7::date[]) AND (e.day, e.id) IN (SELECT day, event_id FROM given) AND e.erased_at IS NULL
    ORDER BY e.day, e.id
    FOR SHARE
), opened AS (
    INSERT INTO dispatcher.delivery_open
        (next_attempt_at, day, endpoint_no, event_type_code, id, event_id, is_replay, order_key, position)
    SELECT clock_timestamp(), g.day, a.number, g.event_type_code, g.delivery_id, g.event_id, true, k.order_key,
           CASE WHEN k.order_key IS NOT NULL THEN l.position END
    FROM given AS g
    JOIN alive AS a ON true
    JOIN living AS l ON l.day = g.day AND l.id = g.event_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN l.position IS NULL THEN NULL WHEN a.ordering = 'strict' THEN 0
                    WHEN a.ordering = 'key' THEN dispatcher.order_key(l.ordering_key) END AS order_key
    ) AS k
    WHERE to_regclass('dispatcher.delivery_done' || to_char(g.day, '_YYYYMMDD')) IS NOT NULL
      AND NOT EXISTS (SELECT FROM dispatcher.delivery_done AS d
                      WHERE d.day = ANY ($7::date[]) AND d.day = g.day AND d.event_id = g.event_id
                        AND d.endpoint_no = a.number)
    ORDER BY g.delivery_id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, day, endpoint_no, event_id
), kept AS (
    INSERT INTO dispatcher.job_delivery (delivery_id, day, endpoint_no, attempt_count, event_id, job_id)
    SELECT id, day, endpoint_no, 0, event_id, $6 FROM opened
    ON CONFLICT (delivery_id) DO NOTHING
)
SELECT count(*) FROM opened
