-- What kind of server this is. Parameters: none. Locks: none.
SELECT current_setting('server_version_num')::integer / 10000 AS major,
       current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding,
       clock_timestamp() AS now,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
       current_user::text AS user_name
