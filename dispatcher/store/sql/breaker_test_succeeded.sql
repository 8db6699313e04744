-- Has the replica that sends for an endpoint close its breaker, because a test event succeeded. The notification is
-- prompt; the row, if the breaker is published, makes sure where notifications do not arrive.
--
-- Parameters: $1 endpoint id. Index: endpoint_breaker_pkey. Locks: the row; the queue's, at commit.
WITH marked AS (
    UPDATE dispatcher.endpoint_breaker AS b SET tested_at = clock_timestamp() WHERE b.endpoint_id = $1
)
SELECT pg_notify('dispatcher_control', 'tested:' || $1)
