-- Living replicas that do not have an encryption key, or do not publish which keys they have.
--
-- Parameters: $1 the key's id. Index: none, a handful of rows. Locks: none.
SELECT DISTINCT name FROM dispatcher.replica
WHERE expires_at > clock_timestamp() AND (key_ids IS NULL OR NOT ($1 = ANY (key_ids)))
ORDER BY name
