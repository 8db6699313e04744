-- Remembers an applied migration. Parameters: $1 name, $2 phase, $3 checksum. Locks: none but the new row.
INSERT INTO dispatcher.schema_migration (name, phase, checksum) VALUES ($1, $2, $3)
