-- Deletes used states that are too old to be accepted. Parameters: $1 seconds. Index: none, they are few.
-- Locks: those rows.
DELETE FROM dispatcher.sign_in_state WHERE used_at < clock_timestamp() - make_interval(secs => $1)
