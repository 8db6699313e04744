-- How many locks the server can hold, and how many one statement over all of history would need.
--
-- Parameters: none. Index: catalogues. Locks: none. A statement locks each partition and each of its indexes.
SELECT current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS locks_max,
       (SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS part ON part.oid = i.inhrelid AND part.relkind = 'r'
        WHERE i.inhparent IN ('dispatcher.event'::regclass, 'dispatcher.body'::regclass,
                              'dispatcher.delivery_done'::regclass, 'dispatcher.attempt'::regclass)) AS partitions
