-- Notifies the other replicas, at commit, that this transaction created deliveries for their endpoints.
-- Parameters: $1 our incarnation, so that we ignore our own notification. Locks: the queue's, at commit.
--
-- A full notification queue fails the commit, and any role can fill it by listening within a transaction. If more than
-- half of the queue is in use, no notification is sent and the next poll of the other replicas finds the deliveries.
SELECT pg_notify('dispatcher_arrived', $1) WHERE pg_notification_queue_usage() < 0.5
