-- The events whose body has a request id of these digits.
--
-- Parameters: $1 the eight bytes that the digits write, $2 the profiles that have request ids, $3 and $4 the
--   first and the last day (store/day_walk.py).
-- Index: body_request; a profile that is not in it is read whole. Locks: none.
SELECT day, event_id AS id
FROM dispatcher.body
WHERE day BETWEEN $3::date AND $4::date AND substring(sha256(event_id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
ORDER BY day DESC
LIMIT 100
