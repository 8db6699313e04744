-- Each table of ours, or partition: its bytes with indexes, its rows as the planner estimates them, its dead rows.
--
-- Parameters: none. Locks: ACCESS SHARE on each while it is measured; one that is dropped meanwhile has no bytes.
SELECT c.relname AS name, parent.relname AS parent, coalesce(z.bytes, pg_total_relation_size(c.oid), 0) AS bytes,
       greatest(c.reltuples, 0)::bigint AS rows_estimate,
       coalesce(s.n_dead_tup, 0) AS dead_rows, greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed_at,
       greatest(s.last_analyze, s.last_autoanalyze) AS analyzed_at
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'dispatcher'
LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
LEFT JOIN (SELECT d.logicalrelid AS oid, sum(y.size)::bigint AS bytes FROM citus_shard_sizes() AS y
           JOIN pg_dist_shard AS d ON d.shardid = y.shard_id GROUP BY 1) AS z ON z.oid = c.oid
WHERE c.relkind = 'r'
ORDER BY parent.relname NULLS FIRST, c.relname
LIMIT 5000
