-- Counts all secrets, and those that are encrypted with another key than the given one.
--
-- Parameters: $1 the key's id. Index: none, it reads the table. Locks: none.
SELECT count(*) AS total, count(*) FILTER (WHERE key_id <> $1) AS others FROM dispatcher.endpoint_secret
