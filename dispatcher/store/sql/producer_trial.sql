-- Inserts events as a producer would, in the caller's transaction, which must be rolled back.
--
-- Parameters: none. Locks: the new rows. An id that can be guessed would wait for a producer that inserted it and keeps
-- its transaction open. The role is the transaction's; deferred triggers fire here rather than never.
SET LOCAL ROLE dispatcher_producer;
INSERT INTO dispatcher.outbox (type, data, tenant, occurred_at, ordering_key, labels, traceparent)
VALUES ('check.producer', '{"rolled": "back"}', 'default', now(), 'key', '{"check": "true"}', NULL)
RETURNING id;
INSERT INTO dispatcher.outbox (id, type, data)
VALUES ('dispatcher_check_' || gen_random_uuid(), 'check.producer', '{}')
ON CONFLICT (id) DO NOTHING;
SET CONSTRAINTS ALL IMMEDIATE
