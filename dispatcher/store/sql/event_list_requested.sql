-- The events with a body that has a request id of these digits.
--
-- Parameters: $1 the eight bytes that the digits write, $2 the profiles that have request ids, $3 and
--   $4 the first and the last day (store/day_walk.py).
-- Index: event_request, body_request, event_pkey; a profile that is not in the first two is read whole. Locks: none.
SELECT f.day, f.id, e.inserted_at
FROM (
    SELECT day, id FROM dispatcher.event
    WHERE day BETWEEN $3::date AND $4::date AND substring(sha256(id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
    UNION
    SELECT day, event_id FROM dispatcher.body
    WHERE day BETWEEN $3::date AND $4::date AND substring(sha256(event_id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
) AS f
JOIN dispatcher.event AS e ON e.day BETWEEN $3 AND $4 AND e.day = f.day AND e.id = f.id
ORDER BY f.day DESC
LIMIT 100
