-- Ends the leases that a receiver settles, and returns them: who deletes a lease records its attempt.
--
-- Parameters: $1 number of the endpoint, $2 lease ids. Leases that have expired are left to pull_lease_take_expired.sql.
-- Index: pull_lease_lease_id_key. Locks: the rows.
DELETE FROM dispatcher.pull_lease AS l
WHERE l.lease_id = ANY ($2::uuid[]) AND l.endpoint_no = $1 AND l.leased_until > clock_timestamp()
RETURNING l.lease_id, l.leased_at, l.delivery_id, l.day, l.endpoint_no, l.attempt_count, l.schedule_position, l.revision,
       l.state, l.reason, l.trigger, l.event_id, l.order_key
