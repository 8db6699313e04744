-- Sends a message round through NOTIFY, to prove that the LISTEN connection hears. Parameters: $1 channel. Locks: none.
SELECT pg_notify($1, '')
