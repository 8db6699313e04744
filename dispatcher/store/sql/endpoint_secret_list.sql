-- Every sealed secret, to find out whether the keyring opens them. Parameters: none. Locks: none.
SELECT endpoint_id, key_id, sealed FROM dispatcher.endpoint_secret ORDER BY id
