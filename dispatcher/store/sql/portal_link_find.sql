-- The portal link of a code, in whatever state; the rights are those of its session.
--
-- Parameters: $1 SHA-256 of its code. Index: portal_link_hash. Locks: none.
SELECT id, tenant, role, name, color, language, frame_ancestors, session_seconds, created_by, created_at, expires_at,
       used_at, revoked_at
FROM dispatcher.portal_link
WHERE hash = $1
