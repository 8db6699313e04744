-- Sessions and prepared transactions that hold locks in the way of a migration, the oldest transaction first.
--
-- Parameters: none. Locks: none. Locks on tables of the schema come before mere writers, one of which may have an
-- uncommitted schema or role of the same name. For sessions of other roles the times are NULL unless ours may read all
-- statistics; pid, user and application are shown to every role. A prepared transaction has a gid and no pid; the lock
-- on its own transaction id leads to its other locks.
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE granted)
SELECT a.pid, x.gid, coalesce(a.usename, x.owner, '')::text AS user_name,
       coalesce(a.application_name, '') AS application,
       extract(epoch FROM clock_timestamp() - min(coalesce(a.xact_start, x.prepared)))::float8 AS seconds
FROM locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN (pg_prepared_xacts AS x JOIN locks AS own ON own.pid IS NULL AND own.transactionid = x.transaction)
    ON l.pid IS NULL AND l.virtualtransaction = own.virtualtransaction
WHERE l.pid IS DISTINCT FROM pg_backend_pid() AND coalesce(a.datname, x.database) = current_database()
  AND (l.locktype = 'transactionid'
       OR l.relation IN (SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE n.nspname = 'dispatcher'))
GROUP BY a.pid, x.gid, a.usename, x.owner, a.application_name
ORDER BY bool_and(l.locktype = 'transactionid'), seconds DESC NULLS LAST, a.pid
LIMIT 3
