-- Every accepted event of an id, newest first: an id may come again once it is forgotten.
--
-- Parameters: $1 id. Index: event_pkey of each day. Locks: none.
SELECT day, id, accepted_at FROM dispatcher.event WHERE id = $1 ORDER BY day DESC LIMIT 100
