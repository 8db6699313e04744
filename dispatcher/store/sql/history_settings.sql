-- The statement that sets what each connection to this database needs; its owner runs it.
--
-- Citus filters every read of pg_class for tools, which made the driver's look-up of types take 9 to 17 s.
-- Parameters: none. Locks: none.
SELECT pg_catalog.format('ALTER DATABASE %I SET citus.override_table_visibility = off', pg_catalog.current_database())
