-- Has the replica that sends for an endpoint close its breaker, because a test event succeeded. The row decides, for any
-- role can notify; the notification makes the replica read it at once.
--
-- Parameters: $1 endpoint id. Index: endpoint_breaker_pkey. Locks: the row; the queue's, at commit.
WITH marked AS (
    UPDATE dispatcher.endpoint_breaker AS b SET tested_at = clock_timestamp() WHERE b.endpoint_id = $1
)
SELECT pg_notify('dispatcher_control', 'tested') WHERE pg_notification_queue_usage() < 0.5
