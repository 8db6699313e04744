-- The days of events whose text has an index that can be used. Parameters: none. Index: catalogues. Locks: none.
SELECT to_date(right(part.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits AS i
JOIN pg_class AS part ON part.oid = i.inhrelid
JOIN pg_index AS x ON x.indrelid = part.oid AND x.indisvalid AND x.indisready
JOIN pg_class AS c ON c.oid = x.indexrelid AND c.relname = part.relname || '_text'
WHERE i.inhparent = 'dispatcher.event'::regclass
