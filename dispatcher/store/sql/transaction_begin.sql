-- Begins a transaction with its own limits, and with every setting on which the meaning of a statement depends.
--
-- Parameters: none. Locks: none. SET LOCAL, because a transaction pooler may stand between. search_path comes first: names
-- and operators resolve in pg_catalog alone, whatever the role, the database or the session is set to, and pg_temp is
-- named last because a path that omits it searches it first. The planner's settings: see pool.py. One SELECT of
-- set_config() would need a plan, which costs twice as much as these utility statements together: 140 instead of 59 µs.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL transform_null_equals = off;
SET LOCAL array_nulls = on;
SET LOCAL timezone = 'UTC';
SET LOCAL statement_timeout = '5s';
SET LOCAL lock_timeout = '2s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL jit = off
