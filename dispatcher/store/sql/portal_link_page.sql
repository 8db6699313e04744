-- A page of portal links, newest first: unused, used, expired and revoked ones, until they are deleted.
--
-- Parameters: $1 tenant (NULL: any), $2 and $3 time and id of the last one of the page before (NULL: the first page),
--   $4 rows at most. Index: portal_link_page. Locks: none.
SELECT id, tenant, role, name, color, language, frame_ancestors, session_seconds, created_by, created_at, expires_at,
       used_at, revoked_at
FROM dispatcher.portal_link
WHERE ($1::text IS NULL OR tenant = $1)
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC
LIMIT $4
