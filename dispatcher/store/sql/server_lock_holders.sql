-- Sessions that hold locks in the way of a migration, the oldest transaction first.
--
-- Parameters: none. Locks: none. Locks on tables of the schema come before mere writers, one of which may have an
-- uncommitted schema or role of the same name. For sessions of other roles the times are NULL unless ours may read all
-- statistics; pid, user and application are shown to every role.
SELECT a.pid, coalesce(a.usename, '')::text AS user_name, coalesce(a.application_name, '') AS application,
       extract(epoch FROM clock_timestamp() - min(a.xact_start))::float8 AS seconds
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
  AND (l.locktype = 'transactionid'
       OR l.relation IN (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE n.nspname = 'dispatcher'))
GROUP BY a.pid, a.usename, a.application_name
ORDER BY bool_and(l.locktype = 'transactionid'), seconds DESC NULLS LAST, a.pid
LIMIT 3
