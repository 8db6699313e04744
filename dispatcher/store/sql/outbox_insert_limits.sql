-- Bounds how long a publish waits, in its transaction. A producer that holds an uncommitted row of the same id makes
-- every insert of that id wait, and the API has few connections.
--
-- Parameters: none. Locks: none.
SELECT set_config('lock_timeout', '100ms', true)
