-- Does nothing: a transaction that sends nothing is ended by idle_in_transaction_session_timeout.
-- Parameters: none. Locks: none.
SELECT 1
