-- The keys of events with a body that has a request id of these digits, newest day first.
--
-- Parameters: $1 the eight bytes that the digits write, $2 the profiles that have request ids, $3 and
--   $4 the first and the last day (store/day_walk.py).
-- The times of the events are read afterwards (event_list_of_keys.sql): joined here, they cost a read of all events.
-- Index: event_request, body_request; a profile that is not in them is read whole. Locks: none.
SELECT day, id FROM dispatcher.event
WHERE day BETWEEN $3::date AND $4::date AND substring(sha256(id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
UNION
SELECT day, event_id FROM dispatcher.body
WHERE day BETWEEN $3::date AND $4::date AND substring(sha256(event_id::bytea) FOR 8) = $1::bytea AND profile = ANY ($2::text[])
ORDER BY day DESC
LIMIT 100
