-- Opens a session, and ends those of the same token that were used least lately, but for the newest ones.
--
-- Parameters: $1 SHA-256 of its cookie, $2 SHA-256 of the token, $3 seconds until it ends whatever happens,
-- $4 sessions of one token at most. Index: session_pkey; by token none, they are few. Locks: the rows that end.
WITH surplus AS (
    SELECT hash FROM dispatcher.session WHERE token_hash = $2 ORDER BY used_at DESC OFFSET $4 - 1
), ended AS (
    DELETE FROM dispatcher.session WHERE hash IN (SELECT hash FROM surplus)
)
INSERT INTO dispatcher.session (hash, token_hash, ends_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
