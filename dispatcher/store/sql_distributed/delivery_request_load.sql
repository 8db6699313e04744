-- A resend whose delivery is neither open nor ended is left for some minutes: the workers commit after the coordinator.
-- The waiting resends, with the facts that an attempt needs of the delivery, and the cancellations to apply. The event
-- itself is read from history by event_load. A resend is answered if an attempt succeeded that was in flight when the
-- resend was requested, or that began by schedule after that, before a replica read the request.
--
-- Parameters: $1 shards, $2 rows at most, $3 delivery ids that are in flight (their resend comes after),
--   $4 days, a few: only their requests are read, and only their partitions locked (store/day_walk.py).
-- Index: delivery_request_pkey, delivery_open_pkey, delivery_done_pkey, attempt_pkey. Locks: none.
SELECT r.kind, r.delivery_id, d.day, d.event_id, p.id AS endpoint_id, CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS profile,
       CASE WHEN p.own_bodies AND d.attempt_count > 0 THEN p.profile END AS earlier_profile, d.attempt_count,
       d.schedule_position, d.state, d.reason,
       EXISTS (SELECT FROM dispatcher.attempt_row AS a
               WHERE a.day = ANY ($4::date[]) AND a.day = r.day AND a.event_id = r.event_id AND a.endpoint_no = r.endpoint_no AND a.outcome = 1
                 AND r.requested_at <= a.attempted_at + make_interval(secs => least(a.latency_seconds, 86400) + 0.1)) AS answered
FROM dispatcher.delivery_request AS r
JOIN dispatcher.endpoint AS p ON p.number = r.endpoint_no AND p.shard = ANY ($1::smallint[]) AND p.deleted_at IS NULL
     AND (r.kind = 'cancel' OR p.delivery = 'push')
LEFT JOIN LATERAL (
    SELECT o.day, o.event_id, o.attempt_count, o.schedule_position,
           (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state, NULL::smallint AS reason
    FROM dispatcher.delivery_open AS o WHERE o.id = r.delivery_id
    UNION ALL
    SELECT f.day, f.event_id, f.attempt_count, f.schedule_position, f.state, f.reason
    FROM dispatcher.delivery_done AS f
    WHERE f.day = ANY ($4::date[]) AND f.day = r.day AND f.event_id = r.event_id AND f.endpoint_no = r.endpoint_no
    LIMIT 1
) AS d ON r.kind = 'resend'
WHERE r.day = ANY ($4::date[]) AND NOT (r.delivery_id = ANY ($3::uuid[]))
  AND (d.day IS NOT NULL OR r.kind <> 'resend' OR r.requested_at < clock_timestamp() - interval '5 minutes')
ORDER BY r.requested_at
LIMIT $2
