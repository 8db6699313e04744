-- Takes the turn until the end of the transaction; no row: another replica has it, or there are no rules.
-- Parameters: none. Locks: the row.
SELECT true FROM dispatcher.notification_turn WHERE EXISTS (SELECT FROM dispatcher.notification) FOR UPDATE SKIP LOCKED
