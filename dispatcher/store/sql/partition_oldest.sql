-- The oldest day that has a partition of history; NULL: there is none. Parameters: none. Index: catalogues. Locks: none.
SELECT min(to_date(right(part.relname, 8), 'YYYYMMDD')) AS day
FROM pg_inherits AS i
JOIN pg_class AS part ON part.oid = i.inhrelid AND part.relkind = 'r'
WHERE i.inhparent IN ('dispatcher.event'::regclass, 'dispatcher.body'::regclass,
                      'dispatcher.delivery_done'::regclass, 'dispatcher.attempt'::regclass)
