-- The last attempt of each of some deliveries: what a list shows beside them.
--
-- Parameters: $1 delivery ids, $2 the days that these ids allow. Both are of a page, so a hundred rows at most.
-- Index: attempt_pkey of those days, one descent for each delivery and day. Locks: none.
SELECT DISTINCT ON (a.delivery_id)
       a.delivery_id, a.attempt_number, a.trigger, a.outcome, a.flags, a.attempted_at, a.latency_seconds,
       a.response_code, a.response_body, a.error, a.url, a.dns_seconds, a.connect_seconds, a.wait_seconds, a.read_seconds,
       a.reused, a.peer
FROM unnest($1::text[]) AS wanted (id)
CROSS JOIN unnest($2::date[]) AS made (day)
CROSS JOIN LATERAL (
    SELECT * FROM dispatcher.attempt AS one
    WHERE one.day = ANY ($2::date[]) AND one.day = made.day AND one.delivery_id = wanted.id
    ORDER BY one.attempt_number DESC
    LIMIT 1
) AS a
ORDER BY a.delivery_id, a.attempt_number DESC
