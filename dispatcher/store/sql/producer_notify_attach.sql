-- Attaches the wake-up call. Parameters: none. Locks: SHARE ROW EXCLUSIVE on the outbox, for a moment.
-- Deferred to the commit: decided at INSERT, a long transaction would be announced before it can be seen.
CREATE CONSTRAINT TRIGGER outbox_3_notify AFTER INSERT ON dispatcher.outbox
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dispatcher.outbox_notify()
