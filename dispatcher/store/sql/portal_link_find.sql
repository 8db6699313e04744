-- The portal link of a code, with its state; the rights are those of its session.
--
-- Parameters: $1 SHA-256 of its code. Index: portal_link_hash. Locks: none.
SELECT id, tenant, role, name, color, language, frame_ancestors, session_seconds,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
            WHEN used_at IS NOT NULL THEN 'used'
            WHEN expires_at <= clock_timestamp() THEN 'expired'
            ELSE 'unused'
       END AS state
FROM dispatcher.portal_link
WHERE hash = $1
