-- The migrations that were applied, with the checksums that they had. Parameters: none. Locks: none.
SELECT name, checksum FROM dispatcher.schema_migration ORDER BY name
