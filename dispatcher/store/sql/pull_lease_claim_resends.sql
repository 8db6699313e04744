-- Leases deliveries of an endpoint that people want to be sent again. Returns what an attempt needs.
--
-- Parameters: $1 number of the endpoint, $2 deliveries at most, $3 seconds of the lease, $4 lease ids, as many as $2,
--   $5 days, a few: only their requests are read, and only their partitions locked (store/day_walk.py).
-- The due time of a waiting delivery stays. The request stays until its attempt is recorded.
-- Index: endpoint_number_key, delivery_open_pkey, delivery_done_pkey, pull_lease_pkey; delivery_request is small. Locks:
-- the requests, the new leases.
WITH target AS MATERIALIZED (
    SELECT number, revision, CASE WHEN own_bodies THEN profile || '@' || number ELSE profile END AS profile,
           CASE WHEN own_bodies THEN profile END AS earlier_profile
    FROM dispatcher.endpoint
    WHERE number = $1 AND state = 'active' AND delivery = 'pull' AND deleted_at IS NULL
), asked AS MATERIALIZED (
    SELECT r.delivery_id, r.day, r.event_id
    FROM dispatcher.delivery_request AS r
    WHERE r.kind = 'resend' AND r.endpoint_no = $1 AND r.day = ANY ($5::date[]) AND EXISTS (SELECT FROM target)
      AND NOT EXISTS (SELECT FROM dispatcher.pull_lease AS l WHERE l.delivery_id = r.delivery_id)
    ORDER BY r.requested_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), numbered AS (
    SELECT a.*, d.attempt_count, d.schedule_position, d.state, d.reason,
           row_number() OVER (ORDER BY a.delivery_id) AS place
    FROM asked AS a
    CROSS JOIN LATERAL (
        SELECT o.attempt_count, o.schedule_position, (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state,
               NULL::smallint AS reason
        FROM dispatcher.delivery_open AS o WHERE o.id = a.delivery_id
        UNION ALL
        SELECT f.attempt_count, f.schedule_position, f.state, f.reason
        FROM dispatcher.delivery_done AS f
        WHERE f.day = ANY ($5::date[]) AND f.day = a.day AND f.event_id = a.event_id AND f.endpoint_no = $1
        LIMIT 1
    ) AS d
), kept AS (
    INSERT INTO dispatcher.pull_lease
        (leased_until, lease_id, delivery_id, day, endpoint_no, attempt_count, schedule_position, revision, state, reason,
         trigger, event_id)
    SELECT clock_timestamp() + make_interval(secs => $3::float8), ($4::uuid[])[n.place], n.delivery_id, n.day, $1,
           n.attempt_count, n.schedule_position, t.revision, n.state, n.reason, 2 /* manual */, n.event_id
    FROM numbered AS n CROSS JOIN target AS t
    ON CONFLICT (delivery_id) DO NOTHING
    RETURNING *
)
SELECT k.lease_id, k.leased_until, k.delivery_id, k.day, k.event_id, k.attempt_count, t.profile,
       CASE WHEN k.attempt_count > 0 THEN t.earlier_profile END AS earlier_profile
FROM kept AS k CROSS JOIN target AS t
ORDER BY k.delivery_id
