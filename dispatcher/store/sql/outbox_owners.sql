-- The tenants of ids that producers gave, those of events that have left the outbox included. Parameters: $1 ids.
-- Index: outbox_pkey. Locks: none.
SELECT id, tenant FROM dispatcher.outbox WHERE id = ANY ($1::text[])
