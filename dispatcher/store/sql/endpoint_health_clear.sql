-- Deletes the failures of endpoints that have succeeded again. Raises an event for each of them that had a failing
-- event, or that was down for producers' events.
--
-- Parameters: $1 endpoint ids. Index: endpoint_health_pkey, endpoint_pkey. Locks: the rows deleted.
WITH cleared AS (
    DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = ANY ($1::text[]) RETURNING endpoint_id, warned_percent, down_seconds, by_producers
)
INSERT INTO dispatcher.outbox (operational, type, tenant, data)
SELECT true, 'dispatcher.endpoint.recovered', p.tenant, (
    SELECT row_to_json(r) FROM (
        SELECT p.id AS endpoint_id, p.name AS endpoint_name, 'succeeded' AS reason,
               to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at) AS r)
FROM cleared AS c
JOIN dispatcher.endpoint AS p ON p.id = c.endpoint_id AND p.deleted_at IS NULL
WHERE c.warned_percent > 0 OR c.down_seconds > 0 AND c.by_producers
