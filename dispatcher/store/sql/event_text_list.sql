-- The days of events whose last one ended at least so long ago, newest first, each with the index of its text, if there is
-- one, and the statements that make and drop it.
--
-- Parameters: $1 seconds since the end of the day, $2 the incarnation that asks: no rows unless it is the first of those
--   that are alive. Two replicas that make indexes at a time wait for each other until Postgres ends one by a deadlock.
-- Index: catalogues. Locks: none.
-- `is_valid` is NULL without an index, and false while one is made (`is_being_made`) or after a crash interrupted that.
-- The extension may be in any schema, so its operator class is named with it; without the extension `make` is NULL. Only a
-- superuser can create another class of this name.
SELECT to_date(right(part.relname, 8), 'YYYYMMDD') AS day, x.indisvalid AND x.indisready AS is_valid,
       p.pid IS NOT NULL AS is_being_made, coalesce(pg_relation_size(x.indexrelid), 0) AS bytes,
       (SELECT format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON dispatcher.%I USING gin'
                      ' (dispatcher.event_text(id, type, labels, data, bytes) %I.gin_trgm_ops)',
                      part.relname || '_text', part.relname, n.nspname)
        FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = 'pg_trgm') AS make,
       format('DROP INDEX CONCURRENTLY IF EXISTS dispatcher.%I', part.relname || '_text') AS drop,
       format('ANALYZE dispatcher.%I', part.relname) AS analyze
FROM pg_inherits AS i
JOIN pg_class AS part ON part.oid = i.inhrelid
LEFT JOIN (pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid)
       ON x.indrelid = part.oid AND c.relname = part.relname || '_text'
LEFT JOIN pg_stat_progress_create_index AS p ON p.relid = part.oid
WHERE i.inhparent = 'dispatcher.event'::regclass
  AND CASE WHEN part.relname ~ '^event_[0-9]{8}$' THEN to_date(right(part.relname, 8), 'YYYYMMDD') END + 1 -- of any table
      <= (clock_timestamp() - make_interval(secs => $1::float8)) AT TIME ZONE 'UTC'
  AND $2::text = (SELECT min(incarnation) FROM dispatcher.replica WHERE expires_at > clock_timestamp())
ORDER BY day DESC
