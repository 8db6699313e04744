-- Encrypted secrets whose key has no proof: restored or inserted by hand. Parameters: none. Index: encryption_key_pkey.
-- Locks: none.
SELECT s.endpoint_id, s.key_id, s.sealed
FROM dispatcher.endpoint_secret AS s
WHERE NOT EXISTS (SELECT FROM dispatcher.encryption_key AS k WHERE k.key_id = s.key_id)
ORDER BY s.id
