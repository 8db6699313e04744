-- Gives shards back, and calls the others, so that one of them takes them at once and not at its next renewal.
--
-- Parameters: $1 incarnation, $2 shards. Index: shard_pkey. Locks: the rows; the queue's, at commit.
WITH released AS (
    UPDATE dispatcher.shard SET owner = NULL WHERE owner = $1 AND shard = ANY ($2::smallint[]) RETURNING 1
)
SELECT pg_notify('dispatcher_control', 'shards') FROM released WHERE pg_notification_queue_usage() < 0.5 LIMIT 1
