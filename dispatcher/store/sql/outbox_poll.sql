-- What changed since the last look: one row, one statement a second is all an idle dispatcher asks.
-- Parameters: $1 the position to begin at (0: all; see core/floor.py), $2 whether to count the commits that wait for the
-- lock which NOTIFY takes (on no object of the catalogue pg_database, across all databases). Index: outbox_waiting.
-- Locks: none.
-- The last two columns are what that look cost, and why: how long what is to their left took, and the rows in its way:
-- the outbox's dead rows as the statistics have them, or about a third of what the index has room for, since the rows of
-- a transaction that has not ended are in no statistics.
SELECT (SELECT version FROM dispatcher.routing) AS routing_version,
       EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL AND position >= $1) AS outbox_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_request) OR EXISTS (SELECT FROM dispatcher.endpoint_request)
           AS requests_waiting,
       CASE WHEN $2 THEN (SELECT count(*) FROM pg_locks
                          WHERE locktype = 'object' AND database = 0 AND classid = 'pg_database'::regclass AND objid = 0
                            AND NOT granted) ELSE 0 END AS notify_waiters_count,
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took_seconds,
       greatest(pg_stat_get_dead_tuples('dispatcher.outbox'::regclass),
                pg_relation_size('dispatcher.outbox_waiting') / 8192 * 100) AS rows_in_the_way
