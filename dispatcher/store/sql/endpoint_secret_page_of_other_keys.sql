-- A slice of the secrets that are encrypted with another key than the given one.
--
-- Parameters: $1 the key's id, $2 the last id of the slice before, $3 rows at most. Index: endpoint_secret_pkey.
-- Locks: none.
SELECT id, endpoint_id, key_id, sealed
FROM dispatcher.endpoint_secret
WHERE id > $2 AND key_id <> $1
ORDER BY id
LIMIT $3
