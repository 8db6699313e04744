-- What `migrate --distribute` and `check` need of a server that has the extension citus.
--
-- Parameters: none. Index: catalogues. Locks: none.
SELECT (SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards AND noderole = 'primary') AS workers_count,
       ARRAY(SELECT format('%s:%s', nodename, nodeport) FROM pg_dist_node
             WHERE noderole = 'primary' AND (NOT isactive OR NOT metadatasynced) ORDER BY 1) AS inactive,
       ARRAY(SELECT format('%s by %s', c.relname, column_to_column_name(p.logicalrelid, p.partkey))
             FROM pg_dist_partition AS p JOIN pg_class AS c ON c.oid = p.logicalrelid
             WHERE p.partmethod = 'h' AND c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'p'
               AND p.colocationid = (SELECT colocationid FROM pg_dist_partition WHERE logicalrelid = 'dispatcher.event'::regclass)
             ORDER BY 1) AS distributed,
       ARRAY(SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
             WHERE i.inhparent IN (SELECT logicalrelid FROM pg_dist_partition)
               AND c.relnamespace = 'dispatcher'::regnamespace
               AND c.oid NOT IN (SELECT logicalrelid FROM pg_dist_partition) ORDER BY 1) AS local_partitions,
       current_setting('citus.override_table_visibility') = 'off' AS is_visibility_off,
       (SELECT obj_description(to_regclass('dispatcher.event_write'), 'pg_class')) AS functions_mark,
       (SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()) AS replicas_count
