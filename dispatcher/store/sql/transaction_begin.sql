-- Begins a transaction with its own limits, and with every setting on which the meaning of a statement depends.
--
-- Parameters: none. Locks: none. SET LOCAL, because a transaction pooler may stand between. search_path comes first: names
-- and operators resolve in pg_catalog alone, whatever the role, the database or the session is set to, and pg_temp is
-- named last because a path that omits it searches it first. The planner's settings: see pool.py.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT set_config('standard_conforming_strings', 'on', true), set_config('transform_null_equals', 'off', true),
       set_config('array_nulls', 'on', true), set_config('timezone', 'UTC', true),
       set_config('statement_timeout', '5s', true), set_config('lock_timeout', '2s', true),
       set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('jit', 'off', true)
