-- Deletes sign-in links that have expired. Parameters: none. Index: none, they are few. Locks: those rows.
DELETE FROM dispatcher.sign_in_link WHERE expires_at < clock_timestamp()
