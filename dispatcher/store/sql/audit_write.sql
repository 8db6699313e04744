-- Writes down who did what, in the transaction that does it.
--
-- Parameters: $1 actor, $2 tenant, $3 action, $4 object's id, $5 detail (JSON text, never a secret). Locks: none.
INSERT INTO dispatcher.audit (actor, tenant, action, object, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb)
