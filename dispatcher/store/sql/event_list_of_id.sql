-- Every accepted event of an id, newest first: an id may come again once it is forgotten.
--
-- Parameters: $1 id, $2 and $3 the first and the last day (store/day_walk.py). Index: event_pkey of each day. Locks: none.
SELECT day, id, inserted_at FROM dispatcher.event WHERE id = $1 AND day BETWEEN $2::date AND $3::date ORDER BY day DESC LIMIT 100
