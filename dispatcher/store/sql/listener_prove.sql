-- Sends a NOTIFY round trip, to prove that the LISTEN connection receives. Parameters: $1 channel. Locks: none.
SELECT pg_notify($1, '')
