-- Revokes a token that is not, and returns when. Parameters: $1 id. Index: token_pkey. Locks: the row.
UPDATE dispatcher.token SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL RETURNING revoked_at
