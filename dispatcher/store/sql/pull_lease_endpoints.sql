-- What recording needs of some endpoints: the present token of their shards, their policies. Deleted ones included.
--
-- Parameters: $1 numbers. Index: endpoint_number_key, shard_pkey. Locks: none.
SELECT p.number, p.id, p.tenant, p.profile, p.retry_schedule_seconds, p.shard, s.token
FROM dispatcher.endpoint AS p
JOIN dispatcher.shard AS s ON s.shard = p.shard
WHERE p.number = ANY ($1::integer[])
