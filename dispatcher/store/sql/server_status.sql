-- How the database fares: version, size, connections, the oldest snapshot, the queue of notifications, free shards.
--
-- Parameters: none. Locks: none.
-- The oldest snapshot is what keeps dead rows of the hot tables from being cleared away. Those of other roles' sessions
-- only a member of pg_read_all_stats sees.
SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes,
       current_setting('max_connections')::integer AS connections_max,
       (SELECT count(*) FROM pg_stat_activity) AS connections_count,
       pg_notification_queue_usage() AS notify_queue_usage,
       (SELECT max(age(backend_xmin)) FROM pg_stat_activity) AS oldest_xmin_age,
       (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8
        FROM pg_stat_activity WHERE backend_xmin IS NOT NULL) AS oldest_transaction_seconds,
       (SELECT count(*) FROM dispatcher.shard AS s
        WHERE NOT EXISTS (SELECT FROM dispatcher.replica AS r
                          WHERE r.incarnation = s.owner AND r.expires_at > clock_timestamp())) AS shards_free_count,
       clock_timestamp() AS now
