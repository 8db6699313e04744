-- Whether the connected role may act as a producer: false where it is no member. Parameters: none. Locks: none.
SELECT coalesce((SELECT CASE WHEN current_setting('server_version_num')::integer >= 160000
                             THEN pg_has_role(oid, 'SET') ELSE pg_has_role(oid, 'MEMBER') END
                 FROM pg_roles WHERE rolname = 'dispatcher_producer'), false)
