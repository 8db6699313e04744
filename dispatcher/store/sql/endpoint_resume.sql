-- Makes a paused or disabled endpoint active, its failures forgotten: else the next one would disable it again.
--
-- Parameters: $1 id. Index: endpoint_pkey, endpoint_health_pkey, endpoint_status_pkey,
-- endpoint_recent_pkey. Locks: the rows, routing's row.
WITH forgotten AS (
    DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = $1
), status AS (
    DELETE FROM dispatcher.endpoint_status WHERE endpoint_id = $1
), recent AS (
    DELETE FROM dispatcher.endpoint_recent WHERE endpoint_id = $1
)
UPDATE dispatcher.endpoint
SET state = 'active', reason = NULL, paused_at = NULL, updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'active'
