-- Sets the limits of a session that makes indexes of texts. Parameters: $1 how long a statement may run, as text.
-- Locks: none. No limit of locks: CREATE INDEX CONCURRENTLY waits for transactions that began before, and what it holds
-- meanwhile stops neither readers nor writers. One process makes the index, so that deliveries have the other processors.
SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', '0', false),
       set_config('maintenance_work_mem', '128MB', false), set_config('enable_seqscan', 'on', false),
       set_config('max_parallel_maintenance_workers', '0', false)
