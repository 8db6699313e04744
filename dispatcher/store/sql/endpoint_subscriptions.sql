-- What endpoints subscribe to, and how many subscribe to the same.
--
-- Parameters: $1 tenant (NULL: any), $2 rows at most. Index: none, there are thousands of endpoints at most. Locks: none.
SELECT event_types, count(*) AS endpoints_count
FROM dispatcher.endpoint
WHERE deleted_at IS NULL AND ($1::text IS NULL OR tenant = $1)
GROUP BY event_types
ORDER BY count(*) DESC, event_types
LIMIT $2
