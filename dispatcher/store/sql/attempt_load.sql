-- The attempts of one delivery, in order. Parameters: $1 day, $2 event id, $3 endpoint id.
-- Index: attempt_pkey, delivery_done_pkey, endpoint_revision_pkey. Locks: none.
SELECT a.attempt_number, a.trigger, a.outcome, a.flags, a.attempted_at, a.latency_seconds, a.response_code,
       a.response_body, a.error, r.url, a.dns_seconds, a.connect_seconds, a.wait_seconds, a.read_seconds, a.reused, a.peer,
       a.response_headers
FROM dispatcher.attempt_row AS a
LEFT JOIN dispatcher.endpoint_revision AS r ON r.endpoint_no = a.endpoint_no AND r.revision = a.revision
WHERE a.day = $1 AND a.event_id = $2
  AND a.endpoint_no = (SELECT number FROM dispatcher.endpoint WHERE id = $3)
ORDER BY a.attempt_number
LIMIT 1000
