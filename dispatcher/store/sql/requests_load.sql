-- The resends that wait, with all an attempt needs, and the cancellations to forget. One is answered if an attempt
-- succeeded that was in flight when it was asked for, or began after that by schedule, before anybody saw the request.
--
-- Parameters: $1 shards, $2 rows at most, $3 delivery ids that are in flight (their resend comes after),
--   $4 days, a few: only their requests are read, and only their partitions locked (store/day_walk.py).
-- Index: delivery_request_pkey, the deliveries' keys. Locks: none.
SELECT r.kind, r.delivery_id, d.day, d.event_id, d.event_type, r.endpoint_id, d.attempt_count,
       d.schedule_position, d.state, d.reason, b.bytes AS body,
       greatest(least(e.inserted_at, '9999-01-01'), '1970-01-01') AS inserted_at, e.traceparent,
       EXISTS (SELECT FROM dispatcher.attempt AS a
               WHERE a.day = ANY ($4::date[]) AND a.day = r.day AND a.delivery_id = r.delivery_id AND a.outcome = 'ok'
                 AND r.requested_at <= a.attempted_at + make_interval(secs => least(a.latency_seconds, 86400) + 0.1)) AS answered
FROM dispatcher.delivery_request AS r
JOIN dispatcher.endpoint AS p ON p.id = r.endpoint_id AND p.shard = ANY ($1::smallint[]) AND p.deleted_at IS NULL
LEFT JOIN LATERAL (
    SELECT day, event_id, event_type, endpoint_id, attempt_count, schedule_position, state, reason, profile
    FROM dispatcher.delivery AS v WHERE v.day = ANY ($4::date[]) AND v.id = r.delivery_id AND v.day = r.day
) AS d ON r.kind = 'resend'
LEFT JOIN dispatcher.event AS e ON e.day = ANY ($4::date[]) AND e.day = d.day AND e.id = d.event_id
LEFT JOIN dispatcher.body AS b ON b.day = ANY ($4::date[]) AND b.day = d.day AND b.event_id = d.event_id AND b.profile = d.profile
WHERE r.day = ANY ($4::date[]) AND NOT (r.delivery_id = ANY ($3::text[]))
ORDER BY r.requested_at
LIMIT $2
