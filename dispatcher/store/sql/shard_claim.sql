-- Takes shards whose owner is gone or whose lease has ended; the token grows, which fences the old owner.
--
-- Parameters: $1 incarnation, $2 shards at most. Returns shard and token of each. Locks: the rows taken.
UPDATE dispatcher.shard AS s
SET owner = $1, token = s.token + 1
WHERE s.shard IN (
    SELECT f.shard FROM dispatcher.shard AS f
    WHERE NOT EXISTS (SELECT FROM dispatcher.replica AS r
                      WHERE r.incarnation = f.owner AND r.expires_at > clock_timestamp())
    ORDER BY f.shard
    LIMIT $2
    FOR UPDATE SKIP LOCKED)
RETURNING s.shard, s.token
