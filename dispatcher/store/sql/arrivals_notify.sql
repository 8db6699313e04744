-- Tells the other replicas, at commit, that this transaction made deliveries for endpoints of theirs.
-- Parameters: $1 our incarnation, by which we know our own. Locks: the queue's, at commit.
SELECT pg_notify('dispatcher_arrived', $1)
