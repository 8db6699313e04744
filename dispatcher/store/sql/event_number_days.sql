-- The days that have a partition of events, from the newest.
--
-- Parameters: none. Index: catalogues. Locks: none.
SELECT to_date(right(part.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits AS i JOIN pg_class AS part ON part.oid = i.inhrelid
WHERE i.inhparent = 'dispatcher.event'::regclass
ORDER BY day DESC
