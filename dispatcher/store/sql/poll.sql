-- What changed since the last look: one row, one statement a second is all an idle dispatcher asks.
-- Parameters: $1 the position to begin at (0: all; see core/floor.py). Index: outbox_waiting. Locks: none.
-- The last two columns are what that look cost, and why: how long what is to their left took, and the outbox's dead
-- rows as the statistics have them.
SELECT (SELECT version FROM dispatcher.routing) AS routing_version,
       EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL AND position >= $1) AS outbox_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_request) AS requests_waiting,
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS took_seconds,
       pg_stat_get_dead_tuples('dispatcher.outbox'::regclass) AS dead_rows
