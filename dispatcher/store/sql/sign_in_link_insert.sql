-- Creates a sign-in link and returns when it expires.
--
-- Parameters: $1 SHA-256 of its code, $2 who creates it, $3 role, $4 tenant (NULL: all), $5 seconds until it expires.
-- Index: sign_in_link_pkey. Locks: none.
INSERT INTO dispatcher.sign_in_link (hash, created_by, role, tenant, expires_at)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
RETURNING expires_at
