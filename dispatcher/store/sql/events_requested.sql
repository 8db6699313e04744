-- The events whose body has a request id of these digits.
--
-- Parameters: $1 the eight bytes that the digits write, $2 the profiles that have request ids.
-- Index: body_request; a profile that is not in it is read whole. Locks: none.
SELECT day, event_id AS id
FROM dispatcher.body
WHERE substring(sha256(event_id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
ORDER BY day DESC
LIMIT 100
