-- Whether history is distributed over workers: the views of the distributed statements are there (history_distribute.sql).
--
-- Parameters: none. Index: catalogues. Locks: none. It runs before the session's path is set.
SELECT pg_catalog.to_regclass('dispatcher.event_write') IS NOT NULL
