-- Endpoints that are disabled or deleted and still have waiting deliveries.
--
-- Parameters: none. Index: delivery_open_due, one probe an endpoint. Locks: none.
SELECT p.id, CASE WHEN p.deleted_at IS NULL THEN 'endpoint_disabled' ELSE 'endpoint_deleted' END AS reason
FROM dispatcher.endpoint AS p
WHERE (p.state = 'disabled' OR p.deleted_at IS NOT NULL)
  AND EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.endpoint_no = p.number)
LIMIT 100
