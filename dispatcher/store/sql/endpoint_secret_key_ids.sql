-- The ids of the keys that secrets are encrypted with. Parameters: none. Index: none, reads every secret. Locks: none.
SELECT DISTINCT key_id FROM dispatcher.endpoint_secret ORDER BY key_id
