-- Leases the next due deliveries of an endpoint to a receiver that fetches them. Returns what an attempt needs.
--
-- Parameters: $1 number of the endpoint, $2 deliveries at most, $3 seconds of the lease, $4 lease ids, as many as $2.
-- Two receivers at a time get different deliveries: the rows are locked (SKIP LOCKED), a lease moves the due time to its
-- end, and a delivery has one lease at a time. An expired lease that is not recorded yet keeps its delivery.
-- Index: endpoint_number_key, delivery_open_due, pull_lease_pkey. Locks: the open rows, the new leases.
WITH target AS MATERIALIZED (
    SELECT number, revision, CASE WHEN own_bodies THEN profile || '@' || number ELSE profile END AS profile,
           CASE WHEN own_bodies THEN profile END AS earlier_profile
    FROM dispatcher.endpoint
    WHERE number = $1 AND state = 'active' AND delivery = 'pull' AND deleted_at IS NULL
), due AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = $1 AND o.next_attempt_at <= statement_timestamp() AND EXISTS (SELECT FROM target)
      AND NOT EXISTS (SELECT FROM dispatcher.pull_lease AS l WHERE l.delivery_id = o.id)
    ORDER BY o.next_attempt_at, o.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE dispatcher.delivery_open AS o
    SET next_attempt_at = clock_timestamp() + make_interval(secs => $3::float8)
    WHERE o.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING o.*
), numbered AS (
    SELECT l.*, row_number() OVER (ORDER BY l.id) AS place FROM leased AS l
), kept AS (
    INSERT INTO dispatcher.pull_lease
        (leased_until, lease_id, delivery_id, day, endpoint_no, attempt_count, schedule_position, revision, state, trigger,
         event_id)
    SELECT n.next_attempt_at, ($4::uuid[])[n.place], n.id, n.day, n.endpoint_no, n.attempt_count, n.schedule_position,
           t.revision, CASE WHEN n.schedule_position = 0 THEN 1 ELSE 2 END,
           CASE WHEN n.is_replay THEN 3 ELSE 1 END, n.event_id
    FROM numbered AS n CROSS JOIN target AS t
    ON CONFLICT (delivery_id) DO NOTHING
    RETURNING *
)
SELECT k.lease_id, k.leased_until, k.delivery_id, k.day, k.event_id, k.attempt_count, t.profile,
       CASE WHEN k.attempt_count > 0 THEN t.earlier_profile END AS earlier_profile
FROM kept AS k CROSS JOIN target AS t
ORDER BY k.delivery_id
