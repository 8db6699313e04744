-- The routing version, and the endpoints that changed after another version, deleted ones included.
--
-- Parameters: $1 a version; NULL: the ids of all endpoints that are not deleted. One snapshot: a reader that sees a version sees
-- every change up to it, since changes are committed in the order of their versions (dispatcher.routing_changed).
-- Returns when the server started, too: another server may have lost changes that were read from the one before.
-- Index: endpoint_change_version. Locks: none.
SELECT r.version, pg_postmaster_start_time() AS server_started_at,
       CASE WHEN $1::bigint IS NULL
            THEN ARRAY(SELECT p.id FROM dispatcher.endpoint AS p WHERE p.deleted_at IS NULL ORDER BY p.id)
            ELSE ARRAY(SELECT c.endpoint_id FROM dispatcher.endpoint_change AS c WHERE c.version > $1 ORDER BY c.version, c.endpoint_id)
       END AS endpoint_ids
FROM dispatcher.routing AS r
