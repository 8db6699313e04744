-- Revokes a portal link, which ends its session too; a revoked link keeps its time. Returns its tenant and its role,
-- and whether it was revoked now.
--
-- Parameters: $1 id, $2 tenant (NULL: any). Index: portal_link_pkey. Locks: the row.
WITH found AS (
    SELECT id, tenant, role, revoked_at FROM dispatcher.portal_link
    WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)
    FOR UPDATE
), revoked AS (
    UPDATE dispatcher.portal_link AS l SET revoked_at = clock_timestamp()
    FROM found WHERE l.id = found.id AND l.revoked_at IS NULL
    RETURNING l.hash
), ended AS (
    DELETE FROM dispatcher.session
    WHERE source = 'portal' AND authority IN (SELECT hash FROM revoked)
)
SELECT tenant, role, revoked_at IS NULL AS is_new FROM found
