-- Ends leases that have expired, and returns them: who deletes a lease records its attempt.
--
-- Parameters: $1 rows at most. Index: pull_lease_end, pull_lease_pkey. Locks: the rows; those of another process are skipped.
DELETE FROM dispatcher.pull_lease AS l
WHERE l.delivery_id = ANY (ARRAY(
    SELECT e.delivery_id FROM dispatcher.pull_lease AS e
    WHERE e.leased_until <= clock_timestamp()
    ORDER BY e.leased_until
    LIMIT $1
    FOR UPDATE SKIP LOCKED))
RETURNING l.lease_id, l.leased_at, l.delivery_id, l.day, l.endpoint_no, l.attempt_count, l.schedule_position, l.revision,
       l.state, l.reason, l.trigger, l.event_id, l.order_key
