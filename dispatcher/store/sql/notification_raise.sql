-- Raises the event of a message for one endpoint. Parameters: $1 endpoint id, $2 data (JSON text).
-- Index: endpoint_pkey. Locks: none but the new row.
INSERT INTO dispatcher.outbox (operational, type, tenant, data, labels)
SELECT true, 'dispatcher.notification', e.tenant, $2::text::json, jsonb_build_object('endpoint', e.id)
FROM dispatcher.endpoint AS e
WHERE e.id = $1 AND e.deleted_at IS NULL
