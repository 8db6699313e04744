-- Makes the schema; needs CREATE on the database. Parameters: none. Locks: the catalogue's row.
CREATE SCHEMA dispatcher
