-- Living replicas that cannot open what is sealed with a key, or do not tell whether they can.
--
-- Parameters: $1 the key's id. Index: none, a handful of rows. Locks: none.
SELECT DISTINCT name FROM dispatcher.replica
WHERE expires_at > clock_timestamp() AND (key_ids IS NULL OR NOT ($1 = ANY (key_ids)))
ORDER BY name
