-- The endpoints whose id is a text or whose name contains it, deleted ones included.
--
-- Parameters: $1 tenant (NULL: any), $2 id, $3 regular expression (core/text_pattern.py), $4 rows at most.
-- Index: none; every endpoint's row is read, a few µs each. Locks: none.
SELECT number, id
FROM dispatcher.endpoint
WHERE ($1::text IS NULL OR tenant = $1) AND (id = $2 OR name ~ $3)
ORDER BY number
LIMIT $4
