-- Forgets sessions that have ended. Parameters: $1 seconds without use after which they do.
-- Index: none, they are few. Locks: those rows.
DELETE FROM dispatcher.session
WHERE ends_at < clock_timestamp() OR used_at < clock_timestamp() - make_interval(secs => $1)
