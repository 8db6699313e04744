-- What decides when a delivery goes on: its endpoint, deleted or not, the breaker, a resend that waits, dispatchers.
--
-- Parameters: $1 endpoint id, $2 delivery id. Index: endpoint_pkey, endpoint_breaker_pkey, delivery_request_pkey,
-- delivery_open_pkey, delivery_open_line.
-- Locks: none.
SELECT e.id AS endpoint_id, e.name, e.url, e.delivery, e.state, e.reason, e.rate_limit, e.retry_schedule_seconds, e.deleted_at,
       b.state AS breaker_state, b.probe_at,
       EXISTS (SELECT FROM dispatcher.delivery_request AS q
               WHERE q.delivery_id = $2::uuid AND q.kind = 'resend') AS is_resend_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_open AS o
               JOIN dispatcher.delivery_open AS b
                 ON b.endpoint_no = o.endpoint_no AND b.order_key = o.order_key AND b.position < o.position
               WHERE o.id = $2::uuid) AS is_behind,
       (SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()) AS dispatchers_alive,
       clock_timestamp() AS now
FROM dispatcher.endpoint AS e
LEFT JOIN (dispatcher.endpoint_breaker AS b
           JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp())
       ON b.endpoint_id = e.id
WHERE e.id = $1
