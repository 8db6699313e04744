-- How many prepared transactions each worker can hold. Parameters: none. Locks: none.
SELECT nodename, nodeport, result::integer AS prepared_max
FROM run_command_on_workers('SHOW max_prepared_transactions')
WHERE success
