-- Makes a token, unless a living one of its tenant has the name. Returns when it was made.
--
-- Parameters: $1 id, $2 name, $3 prefix, $4 SHA-256, $5 role, $6 tenant (NULL: all), $7 who makes it, $8 when it
-- expires (NULL: never), $9 the endpoint that it is limited to (NULL: none). Index: token_name. Locks: none.
INSERT INTO dispatcher.token (id, name, prefix, hash, role, tenant, created_by, expires_at, endpoint_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (coalesce(tenant, ''), name) WHERE revoked_at IS NULL DO NOTHING
RETURNING created_at
