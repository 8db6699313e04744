-- The proofs of all encryption keys that were ever used. Parameters: none. Index: none, a handful of rows. Locks: none.
SELECT key_id, proof FROM dispatcher.encryption_key
