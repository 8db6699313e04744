-- Takes the lock of the one who changes the schema. Parameters: none.
-- Locks: SHARE ROW EXCLUSIVE on schema_migration, which conflicts with itself; only the owner of the table can take it.
LOCK TABLE dispatcher.schema_migration IN SHARE ROW EXCLUSIVE MODE
