-- The tenants of waiting events, with their positions: one slice of a backlog (core/census.py).
--
-- Parameters: $1 the position after which the slice begins, $2 rows at most, $3 positions of a tenant at most.
-- Returns for each tenant its first positions, the last position and the rows of the slice. Index: outbox_waiting.
-- Locks: none. An index by tenant would cost every insert of every producer; this costs only while a backlog exists.
WITH slice AS MATERIALIZED (
    SELECT position, tenant
    FROM dispatcher.outbox
    WHERE consumed_at IS NULL AND position > $1
    ORDER BY position
    LIMIT $2
)
SELECT tenant, (array_agg(position ORDER BY position))[1:$3] AS positions, max(position) AS last_position,
       count(*) AS rows_count
FROM slice
GROUP BY tenant
