-- Forgets the failures of endpoints that have succeeded again.
--
-- Parameters: $1 endpoint ids. Index: endpoint_health_pkey. Locks: the rows deleted.
DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = ANY ($1::text[])
