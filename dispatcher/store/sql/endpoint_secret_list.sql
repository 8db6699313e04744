-- All encrypted secrets, to check whether the keyring decrypts them. Parameters: none. Locks: none.
SELECT endpoint_id, key_id, sealed FROM dispatcher.endpoint_secret ORDER BY id
