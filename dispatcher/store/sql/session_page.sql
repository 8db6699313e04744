-- A page of sessions that have not ended, newest first. Those of revoked or expired tokens are left out.
--
-- Parameters: $1 tenant (NULL: any, and those for all tenants), $2 seconds without use after which a session ends,
--   $3 and $4 time and id of the last one of the page before (NULL: the first page), $5 rows at most.
-- Index: none, they are few. Locks: none.
SELECT s.id, s.source, s.actor, s.label, coalesce(t.role, s.role) AS role, s.tenant, s.address, s.created_at, s.used_at,
       least(s.ends_at, s.used_at + make_interval(secs => $2)) AS ends_at
FROM dispatcher.session AS s
LEFT JOIN dispatcher.token AS t ON s.source = 'token' AND t.hash = s.authority
WHERE ($1::text IS NULL OR s.tenant = $1)
  AND s.ends_at > clock_timestamp() AND s.used_at > clock_timestamp() - make_interval(secs => $2)
  AND (t.id IS NULL OR (t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())))
  AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4::text))
ORDER BY s.created_at DESC, s.id DESC
LIMIT $5
