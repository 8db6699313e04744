-- The days on which events of an id were accepted, the newest first. Parameters: $1 id, $2 tenant (NULL: any),
-- $3 and $4 the first and the last day (store/day_walk.py).
-- Index: event_pkey of each day. Locks: none.
SELECT day, tenant, inserted_at FROM dispatcher.event
WHERE id = $1 AND day BETWEEN $3::date AND $4::date AND ($2::text IS NULL OR tenant = $2) ORDER BY day DESC
