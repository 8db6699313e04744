-- The partitions of history by day, oldest first, with their sizes; rows are the planner's estimate.
--
-- Parameters: none. Index: none, catalogues only. Locks: ACCESS SHARE on each partition, for its size; one that is
-- dropped meanwhile has no bytes.
SELECT parent.relname::text AS "table", to_date(right(part.relname, 8), 'YYYYMMDD') AS day,
       coalesce(s.bytes, 0) AS bytes, greatest(part.reltuples, 0)::bigint AS rows,
       coalesce(obj_description(part.oid, 'pg_class') = 'emptied', false) AS is_emptied,
       (clock_timestamp() AT TIME ZONE 'UTC')::date AS today
FROM pg_inherits AS i
JOIN pg_class AS parent ON parent.oid = i.inhparent
JOIN pg_class AS part ON part.oid = i.inhrelid
LEFT JOIN (SELECT d.logicalrelid AS oid, sum(z.size)::bigint AS bytes FROM citus_shard_sizes() AS z
           JOIN pg_dist_shard AS d ON d.shardid = z.shard_id GROUP BY 1) AS s ON s.oid = part.oid
WHERE parent.relnamespace = 'dispatcher'::regnamespace AND parent.relkind = 'p' AND part.relkind = 'r'
  AND parent.relname IN ('event', 'body', 'delivery_done', 'attempt')
ORDER BY day, parent.relname
