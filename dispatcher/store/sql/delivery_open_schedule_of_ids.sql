-- Those of some deliveries that wait, in the order of their due times, with what decides when each goes on.
--
-- Parameters: $1 delivery ids; NULL for any: $2 tenant, $3 endpoint id, $4 code of the event type, $5 whether an attempt has
--   failed, $6 and $7 due from and before, $8 the lowest id, $9 the id that all are below.
-- Index: delivery_open_pkey, endpoint_number_key. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, p.name AS endpoint_name, p.tenant, p.profile, d.attempt_count,
       d.schedule_position, greatest(least(d.next_attempt_at, '9999-01-01'), '1970-01-01') AS next_attempt_at, d.warnings,
       p.state AS endpoint_state, p.rate_limit, b.state AS breaker_state, b.probe_at,
       p.delivery = 'pull' AS is_pulled
FROM unnest($1::uuid[]) AS g (id)
JOIN dispatcher.delivery_open AS d ON d.id = g.id
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no AND p.deleted_at IS NULL
LEFT JOIN (dispatcher.endpoint_breaker AS b
           JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp())
       ON b.endpoint_id = p.id
WHERE ($2::text IS NULL OR p.tenant = $2)
  AND ($3::text IS NULL OR p.id = $3)
  AND ($4::integer IS NULL OR d.event_type_code = $4)
  AND ($5::boolean IS NULL OR $5 = (d.schedule_position > 0))
  AND ($6::timestamptz IS NULL OR d.next_attempt_at >= $6)
  AND ($7::timestamptz IS NULL OR d.next_attempt_at < $7)
  AND ($8::uuid IS NULL OR d.id >= $8)
  AND ($9::uuid IS NULL OR d.id < $9)
ORDER BY d.next_attempt_at, d.id
