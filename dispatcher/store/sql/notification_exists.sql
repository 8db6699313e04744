-- Whether there is a rule; asked outside a transaction, so that a deployment without rules pays one statement a turn.
-- Parameters: none. Locks: none.
SELECT EXISTS (SELECT FROM dispatcher.notification)
