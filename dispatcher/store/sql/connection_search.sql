-- Bounds the statements of a search in this transaction, has them planned for their own values, and returns whether other
-- work goes on in the database: transactions of other sessions of the same role, such as recorder and intake.
--
-- Parameters: $1 milliseconds of each statement, as text. Locks: none. One process runs each statement, so that a search
-- never occupies more than one processor of the server.
SELECT set_config('statement_timeout', $1, true), set_config('max_parallel_workers_per_gather', '0', true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
                 AND backend_type = 'client backend' AND state <> 'idle') AS is_busy
