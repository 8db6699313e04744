-- Bounds the statements of a search in this transaction, and has them planned for their own values.
--
-- Parameters: $1 milliseconds of each statement, as text. Locks: none. One process runs each statement, so that a search
-- never occupies more than one processor of the server.
SELECT set_config('statement_timeout', $1, true), set_config('max_parallel_workers_per_gather', '0', true),
       set_config('plan_cache_mode', 'force_custom_plan', true)
