-- Wakes the dispatchers for what people asked, at commit. Parameters: none. Locks: the queue's, at commit.
SELECT pg_notify('dispatcher_control', '')
