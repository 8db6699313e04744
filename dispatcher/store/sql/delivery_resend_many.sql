-- Asks for one more attempt of each of some deliveries, those excepted whose endpoint is deleted or that have no body
-- (any more); returns of how many.
--
-- Parameters: $1 delivery ids, $2 their days, $3 their endpoints' ids, $4 who asks, $5 their events' ids, $6 their
--   profiles. A request that waits is this one.
-- Index: endpoint_pkey, event_pkey, body_pkey, delivery_request_pkey. Locks: FOR SHARE on the endpoints, against their
-- deletion.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $5::text[], $6::text[])
        AS g (delivery_id, day, endpoint_id, event_id, profile)
), alive AS MATERIALIZED (
    SELECT id, number FROM dispatcher.endpoint
    WHERE id IN (SELECT endpoint_id FROM given) AND deleted_at IS NULL
    ORDER BY id
    FOR SHARE
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT g.delivery_id, 'resend', g.day, g.event_id, alive.number, $4
    FROM given AS g JOIN alive ON alive.id = g.endpoint_id
    WHERE EXISTS (SELECT FROM dispatcher.event AS e
                  WHERE e.day = ANY ($2::date[]) AND e.day = g.day AND e.id = g.event_id AND e.profile = g.profile)
       OR EXISTS (SELECT FROM dispatcher.body AS b
                  WHERE b.day = ANY ($2::date[]) AND b.day = g.day AND b.event_id = g.event_id AND b.profile = g.profile)
    ORDER BY g.delivery_id
    ON CONFLICT (delivery_id, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
    RETURNING 1
)
SELECT count(*) FROM asked
