-- The id of the oldest waiting event, to try it alone. Parameters: none. Index: outbox_waiting. Locks: none.
SELECT id FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position LIMIT 1
