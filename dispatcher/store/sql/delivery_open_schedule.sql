-- Waiting deliveries in the order of their due times, with what decides when each goes on.
--
-- Parameters (NULL: any): $1 tenant, $2 endpoint id, $3 code of the event type, $4 whether an attempt has failed (its state
--   is retrying), $5 and $6 due from and before, $7 the lowest id (created since), $8 the id that all are below (until),
--   $9 and $10 due time and id of the last one of the page before, $11 rows at most.
-- Index: delivery_open_due, from the first due one of each endpoint; endpoints are thousands at most. Locks: none.
-- An event type that few of many waiting deliveries have is read past within the index of the endpoint, as is the rest.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, p.name AS endpoint_name, p.tenant, p.profile, d.attempt_count,
       d.schedule_position, greatest(least(d.next_attempt_at, '9999-01-01'), '1970-01-01') AS next_attempt_at, d.warnings,
       p.state AS endpoint_state, p.rate_limit, b.state AS breaker_state, b.probe_at,
       p.delivery = 'pull' AS is_pulled
FROM (
    SELECT o.*
    FROM dispatcher.endpoint AS e
    CROSS JOIN LATERAL (
        SELECT w.*
        FROM dispatcher.delivery_open AS w
        WHERE w.endpoint_no = e.number
          AND ($3::integer IS NULL OR w.event_type_code = $3)
          AND ($4::boolean IS NULL OR $4 = (w.schedule_position > 0))
          AND ($5::timestamptz IS NULL OR w.next_attempt_at >= $5)
          AND ($6::timestamptz IS NULL OR w.next_attempt_at < $6)
          AND ($7::uuid IS NULL OR w.id >= $7)
          AND ($8::uuid IS NULL OR w.id < $8)
          AND ($9::timestamptz IS NULL OR (w.next_attempt_at, w.id) > ($9, $10::uuid))
        ORDER BY w.next_attempt_at, w.id
        LIMIT $11
    ) AS o
    WHERE e.deleted_at IS NULL AND ($1::text IS NULL OR e.tenant = $1) AND ($2::text IS NULL OR e.id = $2)
    ORDER BY o.next_attempt_at, o.id
    LIMIT $11
) AS d
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
LEFT JOIN (dispatcher.endpoint_breaker AS b
           JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp())
       ON b.endpoint_id = p.id
ORDER BY d.next_attempt_at, d.id
