-- Takes away requests that were acted on at once, or that nothing can come of.
--
-- Parameters: $1 delivery ids, $2 kinds. Index: delivery_request_pkey. Locks: the rows deleted.
DELETE FROM dispatcher.delivery_request AS r
USING unnest($1::uuid[], $2::text[]) AS g (delivery_id, kind)
WHERE r.delivery_id = ANY ($1) AND r.delivery_id = g.delivery_id AND r.kind = g.kind
