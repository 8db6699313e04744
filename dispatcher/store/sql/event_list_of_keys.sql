-- The times at which events of some days and ids were inserted, newest day first.
--
-- Parameters: $1 days, $2 event ids, $3 and $4 the first and the last of these days.
-- Planned for these days alone. An id of one day may be on another day as well. Index: event_pkey. Locks: none.
SELECT day, id, inserted_at
FROM dispatcher.event
WHERE day BETWEEN $3::date AND $4::date AND day = ANY ($1::date[]) AND id = ANY ($2::text[])
ORDER BY day DESC
