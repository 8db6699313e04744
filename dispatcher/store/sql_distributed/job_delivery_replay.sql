-- Starts the replay of some deliveries that have ended: they are open again, at the start of the schedule and due now, with
-- the attempts that they had. Returns how many.
--
-- Parameters, one element each: $1 delivery ids, $2 days, a few, $3 event ids, $4 numbers of the endpoints, $5 states;
--   $6 id of the job.
-- Left out: deliveries in another state than was seen, those in a job, those with a resend that waits (its result would end
-- the new run), those of endpoints that are deleted or disabled.
-- The first attempt of a delivery may be in its row; it becomes a row of `attempt`.
-- The place in the endpoint's order is that of the event, as it was.
-- Index: endpoint_number_key, event_pkey, delivery_done_pkey, job_delivery_pkey, delivery_request_pkey. Locks: FOR SHARE on the
-- endpoints; the rows moved.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::integer[], $5::smallint[])
        AS g (delivery_id, day, event_id, endpoint_no, state)
), alive AS MATERIALIZED (
    SELECT number, ordering FROM dispatcher.endpoint
    WHERE number = ANY ($4::integer[]) AND deleted_at IS NULL AND state <> 'disabled'
    ORDER BY number
    FOR SHARE
), fit AS MATERIALIZED (
    SELECT g.delivery_id, g.state, g.endpoint_no
    FROM given AS g JOIN alive AS a ON a.number = g.endpoint_no
    WHERE NOT EXISTS (SELECT FROM dispatcher.job_delivery AS j WHERE j.delivery_id = g.delivery_id)
      AND NOT EXISTS (SELECT FROM dispatcher.delivery_request AS r
                      WHERE r.delivery_id = g.delivery_id AND r.kind = 'resend')
), ended AS MATERIALIZED (
    SELECT d.*, a.ordering
    FROM dispatcher.take_delivery_done(format(
        'DELETE FROM dispatcher.delivery_done WHERE day = ANY (%L::date[]) AND event_id = ANY (%L::text[])'
        ' AND (id::text || state::text) = ANY (%L::text[]) AND NOT test RETURNING *',
        $2::date[], $3::text[], ARRAY(SELECT f.delivery_id::text || f.state::text FROM fit AS f))) AS d
    JOIN alive AS a ON a.number = d.endpoint_no
), attempted AS (
    INSERT INTO dispatcher.attempt
        (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, flags, attempted_at,
         latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision,
         response_code)
    SELECT day, event_id, endpoint_no, id, 1, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
           connect_seconds, wait_seconds, read_seconds, reused, peer, revision, response_code
    FROM ended
    WHERE attempted_at IS NOT NULL
), placed AS MATERIALIZED (
    SELECT e.id, v.position,
           CASE e.ordering WHEN 'strict' THEN 0 WHEN 'key' THEN dispatcher.order_key(v.ordering_key) END AS order_key
    FROM ended AS e
    JOIN dispatcher.event AS v ON v.day = ANY ($2::date[]) AND v.day = e.day AND v.id = e.event_id
    WHERE e.ordering <> 'none' AND v.position IS NOT NULL
), opened AS (
    INSERT INTO dispatcher.delivery_open
        (next_attempt_at, day, endpoint_no, event_type_code, attempt_count, schedule_position, id, event_id, warnings,
         is_replay, order_key, position)
    SELECT clock_timestamp(), e.day, e.endpoint_no, e.event_type_code, e.attempt_count, 0, e.id, e.event_id, e.warnings, true,
           p.order_key, CASE WHEN p.order_key IS NOT NULL THEN p.position END
    FROM ended AS e LEFT JOIN placed AS p ON p.id = e.id
), kept AS (
    INSERT INTO dispatcher.job_delivery (delivery_id, day, endpoint_no, attempt_count, event_id, job_id)
    SELECT id, day, endpoint_no, attempt_count, event_id, $6 FROM ended
    ON CONFLICT (delivery_id) DO NOTHING
)
SELECT count(*) FROM ended
