-- The days that have attempts: how many pages each has, and a counter that moves when rows come (seconds late).
--
-- Parameters: none. Locks: ACCESS SHARE on each while it is measured. Some forty partitions are looked up by name.
SELECT right(c.relname, 8)::date AS day, coalesce(pg_relation_size(c.oid) / current_setting('block_size')::bigint, 0) AS pages,
       coalesce(pg_stat_get_tuples_inserted(c.oid), 0) AS inserted_count
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'dispatcher.attempt'::regclass
ORDER BY day DESC
LIMIT 1000
