-- The days of the deliveries that requests wait for, those of the oldest requests first.
--
-- Parameters: $1 shards, $2 delivery ids that are in flight, $3 days at most. Index: endpoint_number_key; the table is small.
-- Locks: none.
SELECT r.day
FROM dispatcher.delivery_request AS r
JOIN dispatcher.endpoint AS p ON p.number = r.endpoint_no AND p.shard = ANY ($1::smallint[]) AND p.deleted_at IS NULL
     AND (r.kind = 'cancel' OR p.delivery = 'push')
WHERE NOT (r.delivery_id = ANY ($2::uuid[]))
GROUP BY r.day
ORDER BY min(r.requested_at)
LIMIT $3
