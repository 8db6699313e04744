-- The rights that the producers' role lacks, each with the statement that grants it. Parameters: none. Locks: none.
WITH producer AS (
    SELECT oid FROM pg_roles WHERE rolname = 'dispatcher_producer'
)
SELECT 'role dispatcher_producer does not exist' AS problem WHERE NOT EXISTS (SELECT FROM producer)
UNION ALL
SELECT 'role dispatcher_producer lacks USAGE on the schema: GRANT USAGE ON SCHEMA dispatcher TO dispatcher_producer'
FROM producer WHERE NOT has_schema_privilege(oid, 'dispatcher', 'USAGE')
UNION ALL
SELECT 'role dispatcher_producer lacks EXECUTE on the check of labels: '
    || 'GRANT EXECUTE ON FUNCTION dispatcher.labels_are_valid(jsonb) TO dispatcher_producer'
FROM producer WHERE NOT has_function_privilege(oid, 'dispatcher.labels_are_valid(jsonb)', 'EXECUTE')
UNION ALL
SELECT format('role dispatcher_producer lacks EXECUTE on %s: GRANT EXECUTE ON FUNCTION %1$s TO dispatcher_producer', name)
FROM producer,
     unnest(ARRAY['dispatcher.publish(text,json,text,text,jsonb,timestamptz,text,text)',
                  'dispatcher.publish(text,text,text,text,jsonb,timestamptz,text,text)']) AS name
WHERE NOT has_function_privilege(oid, name, 'EXECUTE')
UNION ALL
SELECT format('role dispatcher_producer lacks %s of the column %I: GRANT %1$s (%2$I) ON dispatcher.outbox TO dispatcher_producer',
              needed.privilege, needed.name)
FROM producer,
     (VALUES ('INSERT', 'type'), ('INSERT', 'data'), ('INSERT', 'id'), ('INSERT', 'tenant'), ('INSERT', 'occurred_at'),
             ('INSERT', 'ordering_key'), ('INSERT', 'labels'), ('INSERT', 'traceparent'), ('SELECT', 'id'))
         AS needed (privilege, name)
WHERE NOT has_column_privilege(producer.oid, 'dispatcher.outbox', needed.name, needed.privilege)
