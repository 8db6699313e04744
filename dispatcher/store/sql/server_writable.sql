-- Whether this server takes writes: a demoted primary answers every SELECT. Parameters: none. Locks: none.
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
