-- People who have signed in, last first.
--
-- Parameters: $1 tenant (NULL: any, and those for all tenants), $2 and $3 time and id of the last one of the page
--   before (NULL: the first page), $4 rows at most. Index: none, they are few. Locks: none.
SELECT id, issuer, subject, name, role, tenant, created_at, signed_in_at
FROM dispatcher.person
WHERE ($1::text IS NULL OR tenant = $1)
  AND ($2::timestamptz IS NULL OR (signed_in_at, id) < ($2, $3::text))
ORDER BY signed_in_at DESC, id DESC
LIMIT $4
