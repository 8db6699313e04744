-- Makes the list of applied migrations. Parameters: none. Locks: none but the new table.
CREATE TABLE dispatcher.schema_migration (
    name        text        NOT NULL PRIMARY KEY,
    phase       text        NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)
