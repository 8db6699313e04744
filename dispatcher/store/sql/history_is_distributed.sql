-- Whether history is distributed over workers: the views of the distributed statements are there (history_distribute.sql).
--
-- Parameters: none. Index: catalogues. Locks: none. It runs before the session's path is set, and needs no right to the
-- schema: the first statement of a role without one fails, with the reason.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c, pg_catalog.pg_namespace AS n
    WHERE c.relname OPERATOR(pg_catalog.=) 'event_write' AND c.relnamespace OPERATOR(pg_catalog.=) n.oid
      AND n.nspname OPERATOR(pg_catalog.=) 'dispatcher'
)
