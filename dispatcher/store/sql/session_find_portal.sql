-- A portal session that has not ended, with the rights and the appearance of its link.
--
-- Parameters: $1 SHA-256 of its cookie, $2 seconds without use after which it ends.
-- Index: session_pkey, portal_link_hash. Locks: none.
SELECT l.id, l.tenant, l.role, l.name, l.color, l.language, l.frame_ancestors, l.session_seconds, l.created_by,
       l.created_at, l.expires_at, l.used_at, l.revoked_at, l.hash
FROM dispatcher.session AS s
JOIN dispatcher.portal_link AS l ON l.hash = s.authority AND l.revoked_at IS NULL
WHERE s.hash = $1 AND s.source = 'portal' AND s.ends_at > clock_timestamp()
  AND s.used_at > clock_timestamp() - make_interval(secs => $2)
