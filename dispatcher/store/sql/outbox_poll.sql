-- What changed since the last look: one row, one statement a second is all an idle dispatcher asks.
-- Parameters: $1 the position to begin at (0: all; see core/floor.py). Index: outbox_waiting. Locks: none.
-- The last two columns are what that look cost, and why: how long what is to their left took, and the rows in its way:
-- the outbox's dead rows as the statistics have them, or about a third of what the index has room for, since the rows of
-- a transaction that has not ended are in no statistics.
SELECT (SELECT version FROM dispatcher.routing) AS routing_version,
       EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL AND position >= $1) AS outbox_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_request) OR EXISTS (SELECT FROM dispatcher.endpoint_request)
           AS requests_waiting,
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took_seconds,
       greatest(pg_stat_get_dead_tuples('dispatcher.outbox'::regclass),
                pg_relation_size('dispatcher.outbox_waiting') / 8192 * 100) AS rows_in_the_way
