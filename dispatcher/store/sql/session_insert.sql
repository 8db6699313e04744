-- Opens a session. Parameters: $1 SHA-256 of its cookie, $2 SHA-256 of the token, $3 seconds until it ends whatever
-- happens. Locks: none.
INSERT INTO dispatcher.session (hash, token_hash, ends_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
