-- What changed since the last look: one row, one statement a second is all an idle dispatcher asks.
-- Parameters: none. Index: outbox_waiting. Locks: none.
SELECT (SELECT version FROM dispatcher.routing) AS routing_version,
       EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL) AS outbox_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_request) AS requests_waiting
