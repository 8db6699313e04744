-- The oldest day that has a partition of history; NULL: there is none. Parameters: none. Locks: none.
-- Index: pg_class_relname_nsp_index, whose first partition of each table this is, however many there are.
SELECT min(to_date(right(oldest.relname, 8), 'YYYYMMDD')) AS day
FROM unnest(ARRAY['event', 'body', 'delivery_done', 'attempt']) AS parent (name)
CROSS JOIN LATERAL (
    SELECT c.relname
    FROM pg_class AS c
    WHERE c.relname >= (parent.name || '_0')::name AND c.relname < (parent.name || '_:')::name
      AND c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND c.relispartition
    ORDER BY c.relname
    LIMIT 1) AS oldest
