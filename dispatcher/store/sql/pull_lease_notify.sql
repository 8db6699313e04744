-- Wakes the polls of some endpoints, at commit. Parameters: $1 their numbers, joined by commas; empty: all polls. Locks: the
-- queue's, at commit.
--
-- A full queue fails the commit (delivery_open_notify.sql). A poll that is not woken reads again within a second.
SELECT pg_notify('dispatcher_pulled', $1) WHERE pg_notification_queue_usage() < 0.5
