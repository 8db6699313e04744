-- The last attempt of each of some deliveries: what a list shows next to them.
--
-- Parameters: one element each: $1 delivery ids, $2 their days, $3 events' ids, $4 endpoints' ids. A page, so some
-- hundred at most. Index: attempt_pkey and delivery_done_pkey of each day, endpoint_revision_pkey. Locks: none.
SELECT a.delivery_id, a.attempt_number, a.trigger, a.outcome, a.flags, a.attempted_at, a.latency_seconds,
       a.response_code, a.response_body, a.error, r.url, a.dns_seconds, a.connect_seconds, a.wait_seconds,
       a.read_seconds, a.reused, a.peer
FROM unnest($1::uuid[], $2::date[], $3::text[], $4::text[]) AS g (delivery_id, day, event_id, endpoint_id)
JOIN dispatcher.endpoint AS p ON p.id = g.endpoint_id
CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.attempt_row AS v
    WHERE v.day = ANY ($2::date[]) AND v.day = g.day AND v.event_id = g.event_id AND v.endpoint_no = p.number
    ORDER BY v.attempt_number DESC
    LIMIT 1
) AS a
LEFT JOIN dispatcher.endpoint_revision AS r ON r.endpoint_no = a.endpoint_no AND r.revision = a.revision
