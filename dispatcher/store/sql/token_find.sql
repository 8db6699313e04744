-- The token of a SHA-256, if it may still be used. Parameters: $1 SHA-256. Index: token_hash. Locks: none.
SELECT id, name, role, tenant, endpoint_id
FROM dispatcher.token
WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
