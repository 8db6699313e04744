-- Takes over leases that have expired, and returns them: who takes a lease over records its attempt, and then ends it
-- (pull_lease_end.sql). Until then no poll gets the delivery, and its receiver can no longer settle the lease.
--
-- Parameters: $1 rows at most, $2 seconds until others may take them over, should this process crash.
-- Index: pull_lease_end, pull_lease_pkey. Locks: the rows; those of another process are skipped.
UPDATE dispatcher.pull_lease AS l
SET lease_id = gen_random_uuid(), leased_until = clock_timestamp() + make_interval(secs => $2::float8)
WHERE l.delivery_id = ANY (ARRAY(
    SELECT e.delivery_id FROM dispatcher.pull_lease AS e
    WHERE e.leased_until <= clock_timestamp()
    ORDER BY e.leased_until
    LIMIT $1
    FOR UPDATE SKIP LOCKED))
RETURNING l.lease_id, l.leased_at, l.delivery_id, l.day, l.endpoint_no, l.attempt_count, l.schedule_position, l.revision,
       l.state, l.reason, l.trigger, l.event_id, l.order_key
