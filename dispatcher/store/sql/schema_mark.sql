-- Who made the schema, by its own words; no row where there is none. Parameters: none. Locks: none.
SELECT coalesce(obj_description(oid, 'pg_namespace'), '') AS mark FROM pg_namespace WHERE nspname = 'dispatcher'
