-- Creates a portal link and returns it.
--
-- Parameters: $1 id, $2 SHA-256 of its code, $3 tenant, $4 role, $5 name (NULL: the console's), $6 color (NULL: the
--   console's), $7 language (NULL: the browser's), $8 origins that may embed it, $9 seconds that its session lasts,
--   $10 who creates it, $11 seconds until it expires. Index: portal_link_pkey. Locks: none.
INSERT INTO dispatcher.portal_link
    (id, hash, tenant, role, name, color, language, frame_ancestors, session_seconds, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() + make_interval(secs => $11))
RETURNING id, tenant, role, name, color, language, frame_ancestors, session_seconds, created_by, created_at, expires_at,
          used_at, revoked_at
