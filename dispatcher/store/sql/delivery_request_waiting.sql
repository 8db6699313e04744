-- The deliveries that people's requests are about, to read them one by one where a row cannot be read.
--
-- Parameters: $1 shards, $2 delivery ids to leave out. Index: delivery_request_pkey. Locks: none.
SELECT DISTINCT r.delivery_id
FROM dispatcher.delivery_request AS r
JOIN dispatcher.endpoint AS p ON p.number = r.endpoint_no AND p.shard = ANY ($1::smallint[]) AND p.deleted_at IS NULL
     AND (r.kind = 'cancel' OR p.delivery = 'push')
WHERE NOT (r.delivery_id = ANY ($2::uuid[]))
LIMIT 500
