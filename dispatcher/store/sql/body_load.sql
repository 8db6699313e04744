-- The bytes that go over the wire for one event under one profile. Parameters: $1 day, $2 event id, $3 profile.
-- Index: body_pkey of that day. Locks: none.
SELECT bytes FROM dispatcher.body WHERE day = $1 AND event_id = $2 AND profile = $3
