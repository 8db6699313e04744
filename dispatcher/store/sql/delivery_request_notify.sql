-- Wakes the dispatchers for what people asked, at commit. Parameters: none. Locks: the queue's, at commit.
-- Silent while the queue is more than half full (delivery_open_notify.sql): the poll finds the request.
SELECT pg_notify('dispatcher_control', '') WHERE pg_notification_queue_usage() < 0.5
