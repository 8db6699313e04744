-- The bytes that go over the wire for one event under one profile. Parameters: $1 day, $2 event id, $3 profile.
-- Index: event_pkey, body_pkey of that day. Locks: none.
SELECT bytes FROM dispatcher.event WHERE day = $1 AND id = $2 AND profile = $3
UNION ALL
SELECT bytes FROM dispatcher.body WHERE day = $1 AND event_id = $2 AND profile = $3
LIMIT 1
