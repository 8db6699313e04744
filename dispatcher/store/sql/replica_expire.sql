-- Ends the lease of an incarnation that has not renewed it since it was seen.
--
-- Parameters: $1 incarnation, $2 its renewed_at when first seen. Returns the id where it was so. Locks: the row.
DELETE FROM dispatcher.replica WHERE incarnation = $1 AND renewed_at = $2 RETURNING incarnation
