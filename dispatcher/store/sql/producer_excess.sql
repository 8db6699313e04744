-- The rights that the producers' role has beyond what it needs, by itself, through PUBLIC or through another role.
-- Parameters: none. Locks: none.
WITH producer AS (
    SELECT oid FROM pg_roles WHERE rolname = 'dispatcher_producer'
)
SELECT format('%s on dispatcher.%I', held.privilege, c.relname) AS excess
FROM producer,
     pg_class AS c,
     (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) AS held (privilege)
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
  AND has_table_privilege(producer.oid, c.oid, held.privilege)
UNION ALL
SELECT format('%s on the column %I of dispatcher.%I', held.privilege, a.attname, c.relname)
FROM producer,
     pg_class AS c
     JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped,
     (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) AS held (privilege)
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
  AND NOT has_table_privilege(producer.oid, c.oid, held.privilege)
  AND has_column_privilege(producer.oid, c.oid, a.attnum, held.privilege)
  AND NOT (c.relname = 'outbox' AND (held.privilege, a.attname) IN (
      ('SELECT', 'id'), ('INSERT', 'type'), ('INSERT', 'data'), ('INSERT', 'id'), ('INSERT', 'tenant'),
      ('INSERT', 'occurred_at'), ('INSERT', 'ordering_key'), ('INSERT', 'labels'), ('INSERT', 'traceparent')))
UNION ALL
SELECT format('%s on the sequence dispatcher.%I', held.privilege, c.relname)
FROM producer,
     pg_class AS c,
     (VALUES ('USAGE'), ('SELECT'), ('UPDATE')) AS held (privilege)
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'S'
  AND has_sequence_privilege(producer.oid, c.oid, held.privilege)
UNION ALL
SELECT 'CREATE on the schema dispatcher' FROM producer WHERE has_schema_privilege(oid, 'dispatcher', 'CREATE')
