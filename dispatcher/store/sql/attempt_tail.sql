-- The newest attempts in the last pages of one day of `attempt`, each with the current state of its delivery.
--
-- Parameters: $1 day, $2 the first row's place (`(page,row)`), $3 attempted at or after this, $4 rows at most.
-- Index: none, on purpose: attempts are only ever appended, so new rows are at the end of their partition and are read
-- by place (a TID range scan). An index by time would cost every attempt. delivery_open_pkey and delivery_done_pkey for
-- the deliveries. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key,
       a.attempt_number, a.trigger, a.outcome, a.flags, a.attempted_at, a.latency_seconds, a.response_code,
       NULL::bytea AS response_body, a.error, r.url, a.dns_seconds, a.connect_seconds, a.wait_seconds, a.read_seconds,
       a.reused, a.peer, NULL::bytea AS response_headers
FROM (SELECT * FROM dispatcher.attempt
      WHERE day = $1 AND ctid >= $2::text::tid AND attempted_at >= $3
      ORDER BY attempted_at DESC
      LIMIT $4) AS a
CROSS JOIN LATERAL (
    SELECT o.id, o.day, o.event_id, o.endpoint_no,
           (CASE WHEN o.schedule_position = 0 THEN 1 ELSE 2 END)::smallint AS state, NULL::smallint AS reason,
           false AS test, o.attempt_count, o.schedule_position, o.next_attempt_at, NULL::timestamptz AS finished_at,
           o.warnings
    FROM dispatcher.delivery_open AS o
    WHERE o.id = a.delivery_id
    UNION ALL
    SELECT f.id, f.day, f.event_id, f.endpoint_no, f.state, f.reason, f.test, f.attempt_count, f.schedule_position,
           NULL, f.finished_at, f.warnings
    FROM dispatcher.delivery_done AS f
    WHERE f.day = $1 AND f.event_id = a.event_id AND f.endpoint_no = a.endpoint_no
    LIMIT 1
) AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
JOIN dispatcher.event AS e ON e.day = $1 AND e.id = a.event_id
LEFT JOIN dispatcher.endpoint_revision AS r ON r.endpoint_no = a.endpoint_no AND r.revision = a.revision
ORDER BY a.attempted_at
