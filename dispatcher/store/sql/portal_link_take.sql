-- Uses a portal link up, unless it was used or revoked or has expired. Of two requests with the same code, one gets
-- the row.
--
-- Parameters: $1 SHA-256 of its code. Index: portal_link_hash. Locks: the row.
UPDATE dispatcher.portal_link
SET used_at = clock_timestamp()
WHERE hash = $1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()
RETURNING id, tenant, role, name, color, language, frame_ancestors, session_seconds, created_by, created_at, expires_at,
          used_at, revoked_at
