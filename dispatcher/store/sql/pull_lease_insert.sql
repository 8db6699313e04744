-- Leases deliveries to a receiver that fetches them, and returns what their requests need.
--
-- Parameters: $1 number of the endpoint, $2 seconds of the lease, then one element each, as pull_lease_due and
--   pull_lease_resends return them: $3 lease ids, $4 delivery ids, $5 days, $6 event ids, $7 attempt counts, $8 schedule
--   positions, $9 states, $10 reasons, $11 triggers, $12 the key of the line (NULL: it is sent in no order).
-- A delivery has one lease at a time, and so has a line: those that have one already are left out. The due time of a
-- scheduled delivery becomes the end of its lease; a resend leaves it.
-- Index: pull_lease_pkey, pull_lease_line, delivery_open_pkey, endpoint_number_key. Locks: the new leases, the open rows.
WITH kept AS (
    INSERT INTO dispatcher.pull_lease
        (leased_until, lease_id, delivery_id, day, endpoint_no, attempt_count, schedule_position, revision, state, reason,
         trigger, event_id, order_key)
    SELECT clock_timestamp() + make_interval(secs => $2::float8), g.lease_id, g.delivery_id, g.day, $1, g.attempt_count,
           g.schedule_position, p.revision, g.state, g.reason, g.trigger, g.event_id, g.order_key
    FROM unnest($3::uuid[], $4::uuid[], $5::date[], $6::text[], $7::integer[], $8::integer[], $9::smallint[],
                $10::smallint[], $11::smallint[], $12::bigint[])
             AS g (lease_id, delivery_id, day, event_id, attempt_count, schedule_position, state, reason, trigger, order_key)
    CROSS JOIN dispatcher.endpoint AS p
    WHERE p.number = $1
    ON CONFLICT DO NOTHING
    RETURNING *
), moved AS (
    UPDATE dispatcher.delivery_open AS o
    SET next_attempt_at = k.leased_until
    FROM kept AS k
    WHERE o.id = k.delivery_id AND o.id = ANY ($4::uuid[]) AND k.trigger <> 2 /* manual */
)
SELECT k.lease_id, k.leased_until, k.delivery_id, k.day, k.event_id, k.attempt_count,
       CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS profile,
       CASE WHEN p.own_bodies AND k.attempt_count > 0 THEN p.profile END AS earlier_profile
FROM kept AS k
JOIN dispatcher.endpoint AS p ON p.number = $1
ORDER BY k.delivery_id
