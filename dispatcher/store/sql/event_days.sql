-- The days on which events of an id were accepted, the newest first. Parameters: $1 id, $2 tenant (NULL: any).
-- Index: event_pkey of each day. Locks: none.
SELECT day, tenant FROM dispatcher.event WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) ORDER BY day DESC
