-- The digests of tokens that may be used, those used last first. Parameters: $1 how many. Locks: none.
SELECT hash
FROM dispatcher.token
WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
ORDER BY coalesce(last_used_at, created_at) DESC
LIMIT $1
