-- Tells the other replicas, at commit, that this transaction made deliveries for endpoints of theirs.
-- Parameters: $1 our incarnation, by which we know our own. Locks: the queue's, at commit.
--
-- A full queue fails the commit, and any role may fill it by listening within a transaction: beyond a half nothing is
-- announced, and the others' next look finds the deliveries.
SELECT pg_notify('dispatcher_arrived', $1) WHERE pg_notification_queue_usage() < 0.5
