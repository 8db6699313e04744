-- Disables an active endpoint by decision of the system, with an audit line and an event; a paused one stays paused.
--
-- Parameters: $1 endpoint id, $2 reason, $3 whether an event is raised (not by deliveries of such events).
-- Returns the id if the state changed: of two replicas that decide at the same time, only one gets it.
-- Index: endpoint_pkey. Locks: the row, routing's row.
WITH disabled AS (
    UPDATE dispatcher.endpoint
    SET state = 'disabled', reason = $2, updated_at = clock_timestamp()
    WHERE id = $1 AND state = 'active' AND deleted_at IS NULL
    RETURNING id, tenant, name, reason
), audited AS (
    INSERT INTO dispatcher.audit (actor, tenant, action, object, detail)
    SELECT 'dispatcher', tenant, 'endpoint.disable', id, jsonb_build_object('reason', reason) FROM disabled
), raised AS (
    INSERT INTO dispatcher.outbox (operational, type, tenant, data)
    SELECT true, 'dispatcher.endpoint.disabled', d.tenant, (
        SELECT row_to_json(r) FROM (
            SELECT d.id AS endpoint_id, d.name AS endpoint_name, d.reason,
                   to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at) AS r)
    FROM disabled AS d
    WHERE $3
)
SELECT id FROM disabled
