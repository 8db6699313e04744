-- Deliveries of an endpoint that people want to be sent again, with what a lease keeps of them. Their requests are locked.
--
-- Parameters: $1 number of the endpoint, $2 rows at most, $3 days, a few: only their requests are read, and only their
--   partitions locked (store/day_walk.py). The request stays until its attempt is recorded.
-- Index: endpoint_number_key, delivery_open_pkey, delivery_done_pkey, pull_lease_pkey; delivery_request is small. Locks: the
-- requests.
WITH asked AS MATERIALIZED (
    SELECT r.delivery_id, r.day, r.event_id
    FROM dispatcher.delivery_request AS r
    WHERE r.kind = 'resend' AND r.endpoint_no = $1 AND r.day = ANY ($3::date[])
      AND EXISTS (SELECT FROM dispatcher.endpoint AS p
                  WHERE p.number = $1 AND p.state = 'active' AND p.delivery = 'pull' AND p.deleted_at IS NULL)
      AND NOT EXISTS (SELECT FROM dispatcher.pull_lease AS l WHERE l.delivery_id = r.delivery_id)
    ORDER BY r.requested_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
SELECT a.delivery_id AS id, a.day, a.event_id, d.attempt_count, d.schedule_position, d.state, d.reason,
       2::smallint AS trigger, d.is_open
FROM asked AS a
CROSS JOIN LATERAL (
    SELECT o.attempt_count, o.schedule_position, (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state,
           NULL::smallint AS reason, true AS is_open
    FROM dispatcher.delivery_open AS o WHERE o.id = a.delivery_id
    UNION ALL
    SELECT f.attempt_count, f.schedule_position, f.state, f.reason, false
    FROM dispatcher.delivery_done AS f
    WHERE f.day = ANY ($3::date[]) AND f.day = a.day AND f.event_id = a.event_id AND f.endpoint_no = $1
    LIMIT 1
) AS d
