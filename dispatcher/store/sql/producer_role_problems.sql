-- What the producers' role lacks. Parameters: none. Locks: none.
SELECT problem
FROM (VALUES ('role dispatcher_producer does not exist',
              NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dispatcher_producer'))) AS v (problem, wrong)
WHERE wrong
UNION ALL
SELECT 'role dispatcher_producer may not insert into dispatcher.outbox'
FROM pg_roles WHERE rolname = 'dispatcher_producer'
  AND NOT (has_schema_privilege(rolname, 'dispatcher', 'USAGE')
           AND has_sequence_privilege(rolname, 'dispatcher.event_number', 'USAGE')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'type', 'INSERT')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'data', 'INSERT')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'id', 'SELECT'))
