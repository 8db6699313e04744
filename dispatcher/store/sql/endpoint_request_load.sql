-- The requests about endpoints of some shards, under the token that each shard has now: a replica that lost a shard leaves
-- them to the next one.
--
-- Parameters: $1 shards, $2 tokens (one pair a shard), $3 rows at most.
-- Index: endpoint_number_key, shard_pkey; the table is small. Locks: none.
SELECT p.id AS endpoint_id, r.endpoint_no, r.kind, r.requested_at, r.delivery_id, r.day, r.event_id
FROM dispatcher.endpoint_request AS r
JOIN dispatcher.endpoint AS p ON p.number = r.endpoint_no AND p.deleted_at IS NULL
JOIN dispatcher.shard AS s ON s.shard = p.shard
WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
ORDER BY r.requested_at
LIMIT $3
