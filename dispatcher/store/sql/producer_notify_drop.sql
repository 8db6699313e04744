-- Drops the wake-up call: for producers that use PREPARE TRANSACTION, which NOTIFY makes fail; polling remains.
-- Parameters: none. Locks: ACCESS EXCLUSIVE on the outbox, for a moment.
DROP TRIGGER IF EXISTS outbox_3_notify ON dispatcher.outbox
