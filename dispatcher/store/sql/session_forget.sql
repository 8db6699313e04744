-- Ends a session. Parameters: $1 SHA-256 of its cookie. Index: session_pkey. Locks: the row.
DELETE FROM dispatcher.session WHERE hash = $1
