-- The last attempt of each of some deliveries: what a list shows next to them.
--
-- Parameters: one element each: $1 delivery ids, $2 their days, $3 events' ids, $4 endpoints' ids. $5 and $6 the first and
-- the last of these days. A page, so some hundred at most.
-- Index: attempt_pkey and delivery_done_id of each day, endpoint_revision_pkey. Locks: none.
-- An ended delivery is read by its id alone: with its endpoint as a condition the planner may choose
-- delivery_done_by_endpoint without the id, and then reads all deliveries of a large endpoint.
SELECT a.delivery_id, a.attempt_number, a.trigger, a.outcome, a.flags, a.attempted_at, a.latency_seconds,
       a.response_code, a.response_body, a.error, r.url, a.dns_seconds, a.connect_seconds, a.wait_seconds,
       a.read_seconds, a.reused, a.peer, a.response_headers
FROM unnest($1::uuid[], $2::date[], $3::text[], $4::text[]) AS g (delivery_id, day, event_id, endpoint_id)
JOIN dispatcher.endpoint AS p ON p.id = g.endpoint_id
CROSS JOIN LATERAL (
    (SELECT v.delivery_id, v.attempt_number, v.trigger, v.outcome, v.flags, v.attempted_at, v.latency_seconds,
            v.response_code, v.response_body, v.error, v.endpoint_no, v.revision, v.dns_seconds, v.connect_seconds,
            v.wait_seconds, v.read_seconds, v.reused, v.peer, v.response_headers
     FROM dispatcher.attempt AS v
     WHERE v.day BETWEEN $5::date AND $6::date AND v.day = g.day AND v.event_id = g.event_id AND v.endpoint_no = p.number
     ORDER BY v.attempt_number DESC
     LIMIT 1)
    UNION ALL
    (SELECT f.id, 1, f.trigger, f.outcome, f.flags, f.attempted_at, f.latency_seconds, f.response_code, NULL, NULL,
            f.endpoint_no, f.revision, f.dns_seconds, f.connect_seconds, f.wait_seconds, f.read_seconds, f.reused,
            f.peer, NULL
     FROM dispatcher.delivery_done AS f
     WHERE f.day BETWEEN $5 AND $6 AND f.day = g.day AND f.id = g.delivery_id AND f.attempted_at IS NOT NULL
     LIMIT 1)
    ORDER BY attempt_number DESC
    LIMIT 1
) AS a
LEFT JOIN dispatcher.endpoint_revision AS r ON r.endpoint_no = a.endpoint_no AND r.revision = a.revision
