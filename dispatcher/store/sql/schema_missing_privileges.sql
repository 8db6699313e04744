-- Privileges that the dispatcher needs and the connected user lacks, as text. Parameters: none. Locks: none.
-- The daemon creates partitions, so it must own their parents, or be a member of the role that does.
SELECT format('SELECT, INSERT, UPDATE, DELETE on dispatcher.%I', c.relname) AS missing
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
UNION ALL
SELECT format('ownership of dispatcher.%I, to make its partitions', c.relname)
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'p'
  AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT 'CREATE on the schema dispatcher, to make partitions'
WHERE NOT has_schema_privilege('dispatcher', 'CREATE')
UNION ALL
SELECT format('SELECT, USAGE, UPDATE on the sequence dispatcher.%I', c.relname)
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'S'
  AND NOT (has_sequence_privilege(c.oid, 'SELECT') AND has_sequence_privilege(c.oid, 'USAGE')
           AND has_sequence_privilege(c.oid, 'UPDATE'))
