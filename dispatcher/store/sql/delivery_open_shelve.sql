-- Shelves deliveries that stand behind another one of their line, so that the endpoint's window reads past them. The
-- replica that owns the endpoint brings them back by delivery_open_wake, when the one before has ended.
--
-- Parameters: $1 delivery ids. Index: delivery_open_pkey. Locks: the rows.
UPDATE dispatcher.delivery_open AS o SET next_attempt_at = '9999-01-01 00:00:00+00'
WHERE o.id = ANY ($1::uuid[]) AND o.order_key IS NOT NULL AND o.next_attempt_at < statement_timestamp()
