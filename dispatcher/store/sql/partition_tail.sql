-- The partitions that receive attempts: how many pages each has, and a counter that moves when rows come (seconds
-- late).
--
-- Parameters: none. Locks: ACCESS SHARE on each while it is measured. Some eighty partitions are looked up by name.
SELECT parent.relname::text AS "table", right(c.relname, 8)::date AS day,
       coalesce(pg_relation_size(c.oid) / current_setting('block_size')::bigint, 0) AS pages,
       coalesce(pg_stat_get_tuples_inserted(c.oid), 0) AS inserted_count
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
JOIN pg_class AS parent ON parent.oid = i.inhparent
WHERE i.inhparent IN ('dispatcher.delivery_done'::regclass, 'dispatcher.attempt'::regclass)
ORDER BY day DESC, "table"
LIMIT 2000
