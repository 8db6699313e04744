-- Takes the lock of the one who changes the schema. Parameters: none.
-- Locks: EXCLUSIVE on schema_migration, which conflicts with itself and with the row locks of lock_upkeep().
LOCK TABLE dispatcher.schema_migration IN EXCLUSIVE MODE
