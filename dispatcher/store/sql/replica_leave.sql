-- Removes this incarnation from the list at shutdown, and notifies the others that its shards are free.
--
-- Parameters: $1 incarnation. Index: replica_pkey. Locks: the row; the queue's, at commit.
WITH gone AS (
    DELETE FROM dispatcher.replica WHERE incarnation = $1 RETURNING 1
)
SELECT pg_notify('dispatcher_control', 'shards') FROM gone WHERE pg_notification_queue_usage() < 0.5
