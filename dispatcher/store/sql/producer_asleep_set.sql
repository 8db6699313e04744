-- Asks producers to announce their commits for some seconds from now; repeated while a dispatcher sleeps.
--
-- Parameters: $1 seconds. Locks: none. setval() takes effect at once and outside of transactions, and on an unlogged
-- sequence it writes no WAL. Several dispatchers share the value: the last one to set it sleeps the longest.
SELECT setval('dispatcher.asleep_until', ceil(extract(epoch FROM clock_timestamp()) + $1::float8)::bigint)
