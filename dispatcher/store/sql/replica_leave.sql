-- Takes this incarnation off the list on the way out, and calls the others to what it leaves.
--
-- Parameters: $1 incarnation. Index: replica_pkey. Locks: the row; the queue's, at commit.
WITH gone AS (
    DELETE FROM dispatcher.replica WHERE incarnation = $1 RETURNING 1
)
SELECT pg_notify('dispatcher_control', 'shards') FROM gone WHERE pg_notification_queue_usage() < 0.5
