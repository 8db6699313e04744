-- What recording needs of some endpoints: the present token of their shards, their policies, whether failures are counted
-- of them, and whether one failed in the last minutes. Deleted ones included.
--
-- Parameters: $1 numbers. Index: endpoint_number_key, shard_pkey, endpoint_health_pkey, endpoint_recent_pkey. Locks: none.
SELECT p.number, p.id, p.tenant, p.profile, p.retry_schedule_seconds,
       CASE WHEN p.ordering <> 'none' THEN p.skip_after_attempts END AS skip_after_attempts, p.shard,
       EXISTS (SELECT FROM dispatcher.endpoint_health AS h WHERE h.endpoint_id = p.id) AS is_failing,
       EXISTS (SELECT FROM dispatcher.endpoint_recent AS r WHERE r.endpoint_id = p.id AND r.failed_count > 0) AS failed_lately,
       s.token
FROM dispatcher.endpoint AS p
JOIN dispatcher.shard AS s ON s.shard = p.shard
WHERE p.number = ANY ($1::integer[])
