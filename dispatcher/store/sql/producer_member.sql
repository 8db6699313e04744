-- Lets the connected role act as a producer, so that `dispatcher check` can insert as one.
-- Parameters: none. Locks: the catalogue row.
DO $$ BEGIN
    IF NOT pg_catalog.pg_has_role('dispatcher_producer', 'MEMBER') THEN
        GRANT dispatcher_producer TO CURRENT_USER;
    END IF;
END $$
