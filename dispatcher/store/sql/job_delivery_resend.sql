-- Starts the resend of some deliveries: requests one more attempt of each whose endpoint is not deleted and whose state is
-- still the one that was seen. Returns of how many.
--
-- Parameters, one element each: $1 delivery ids, $2 days, $3 event ids, $4 numbers of the endpoints, $5 states;
--   $6 id of the job, $7 who requested it; $8 the days, each once.
-- Index: endpoint_number_key, delivery_open_pkey, delivery_done_id, job_delivery_pkey, delivery_request_pkey. Locks: FOR
-- SHARE on the endpoints, against their deletion; the new rows.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::integer[], $5::smallint[])
        AS g (delivery_id, day, event_id, endpoint_no, state)
), alive AS MATERIALIZED (
    SELECT number FROM dispatcher.endpoint WHERE number = ANY ($4::integer[]) AND deleted_at IS NULL
    ORDER BY number
    FOR SHARE
), fit AS MATERIALIZED (
    SELECT g.*, v.attempt_count
    FROM given AS g
    JOIN alive ON alive.number = g.endpoint_no
    CROSS JOIN LATERAL (
        SELECT r.attempt_count FROM dispatcher.delivery_row AS r
        WHERE r.day = ANY ($8::date[]) AND r.id = g.delivery_id AND r.day = g.day
          AND (r.state = g.state OR r.state <= 2 AND g.state <= 2)
        LIMIT 1
    ) AS v
), kept AS (
    INSERT INTO dispatcher.job_delivery (delivery_id, day, endpoint_no, attempt_count, event_id, job_id)
    SELECT delivery_id, day, endpoint_no, attempt_count, event_id, $6 FROM fit ORDER BY delivery_id
    ON CONFLICT (delivery_id) DO NOTHING
    RETURNING delivery_id
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT f.delivery_id, 'resend', f.day, f.event_id, f.endpoint_no, $7
    FROM fit AS f JOIN kept AS k ON k.delivery_id = f.delivery_id
    ORDER BY f.delivery_id
    ON CONFLICT (delivery_id, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
    RETURNING 1
)
SELECT count(*) FROM asked
