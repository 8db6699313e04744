-- Makes the place where applied migrations are remembered. Parameters: none. Locks: only where it is missing.
CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE IF NOT EXISTS dispatcher.schema_migration (
    name        text        NOT NULL PRIMARY KEY,
    phase       text        NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)
