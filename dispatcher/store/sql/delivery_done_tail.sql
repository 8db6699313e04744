-- The newest first attempts in the last pages of one day of `delivery_done`, each with its delivery.
--
-- Parameters: $1 day, $2 the first row's place (`(page,row)`), $3 attempted at or after this, $4 rows at most.
-- Index: none, on purpose, as for attempt_tail: new rows are at the end of their partition. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, NULL::timestamptz AS next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key,
       1 AS attempt_number, d.trigger, d.outcome, d.flags, d.attempted_at, d.latency_seconds, d.response_code,
       NULL::bytea AS response_body, NULL::text AS error, r.url, d.dns_seconds, d.connect_seconds, d.wait_seconds,
       d.read_seconds, d.reused, d.peer, NULL::bytea AS response_headers
FROM (SELECT * FROM dispatcher.delivery_done
      WHERE day = $1 AND ctid >= $2::text::tid AND attempted_at >= $3
      ORDER BY attempted_at DESC
      LIMIT $4) AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
JOIN dispatcher.event AS e ON e.day = $1 AND e.id = d.event_id
LEFT JOIN dispatcher.endpoint_revision AS r ON r.endpoint_no = d.endpoint_no AND r.revision = d.revision
ORDER BY d.attempted_at
