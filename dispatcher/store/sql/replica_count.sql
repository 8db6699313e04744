-- How many dispatchers hold a lease just now. Parameters: none. Locks: none.
SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()
