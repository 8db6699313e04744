-- The database's clock: what all replicas go by. Parameters: none. Locks: none.
SELECT clock_timestamp()
