-- Locks one endpoint for a change. Returns its id, or no row where there is none or it is deleted.
--
-- Parameters: $1 id, $2 tenant (NULL: any). Index: endpoint_pkey. Locks: the row.
SELECT id FROM dispatcher.endpoint
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND deleted_at IS NULL
FOR UPDATE
