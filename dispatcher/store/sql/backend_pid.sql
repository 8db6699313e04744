-- The server process behind this connection: another than it was greeted with means that a pooler stands between.
-- Parameters: none. Locks: none.
SELECT pg_backend_pid()
