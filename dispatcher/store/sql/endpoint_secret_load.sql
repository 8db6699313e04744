-- Encrypted secrets of endpoints, oldest first. Parameters: $1 endpoint ids. Index: endpoint_secret_of. Locks: none.
SELECT endpoint_id, id, role, key_id, sealed, expires_at
FROM dispatcher.endpoint_secret
WHERE endpoint_id = ANY ($1::text[])
ORDER BY id
