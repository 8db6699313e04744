-- Where waiting deliveries stand in their lines: the one immediately before and after each, and whether an earlier event
-- of its line is still in the outbox, so that it must wait for that event's fan-out. Also how often replicas have joined.
--
-- Parameters: $1 delivery ids, $2 events of the outbox that are read at most (with more, later positions count as held).
-- Deliveries without a line have a NULL key; those that have ended have no row.
-- Index: delivery_open_pkey, delivery_open_line, endpoint_number_key, outbox_waiting. Locks: none.
-- One snapshot sees an event either in the outbox or in delivery_open. A row that an uncommitted claim deletes is still in
-- the outbox here. A strict endpoint (key 0) waits for every earlier event of its tenant: its subscription and its filter
-- are not evaluated here. A replica that had committed a claim by this snapshot had joined before, so its join is counted.
WITH given AS MATERIALIZED (
    SELECT o.id, o.endpoint_no, o.order_key, o.position, p.tenant
    FROM unnest($1::uuid[]) AS w (id)
    CROSS JOIN LATERAL (
        SELECT d.id, d.endpoint_no, d.order_key, d.position FROM dispatcher.delivery_open AS d WHERE d.id = w.id
        LIMIT 1  -- as in delivery_open_load.sql
    ) AS o
    JOIN dispatcher.endpoint AS p ON p.number = o.endpoint_no
), earlier AS MATERIALIZED (
    SELECT tenant, position, dispatcher.order_key(ordering_key) AS order_key
    FROM dispatcher.outbox
    WHERE consumed_at IS NULL AND position < (SELECT max(position) FROM given)
      AND tenant = ANY (ARRAY(SELECT DISTINCT tenant FROM given))
    ORDER BY position
    LIMIT $2
), of_key AS MATERIALIZED (
    SELECT tenant, order_key, min(position) AS position FROM earlier GROUP BY tenant, order_key
), of_tenant AS MATERIALIZED (
    SELECT tenant, min(position) AS position FROM earlier GROUP BY tenant
), known AS MATERIALIZED (
    SELECT CASE WHEN count(*) = $2 THEN max(position) END AS position FROM earlier
)
SELECT g.id, g.order_key, g.position,
       (SELECT b.id FROM dispatcher.delivery_open AS b
        WHERE b.endpoint_no = g.endpoint_no AND b.order_key = g.order_key AND b.position < g.position
        ORDER BY b.position DESC LIMIT 1) AS previous_id,
       (SELECT a.id FROM dispatcher.delivery_open AS a
        WHERE a.endpoint_no = g.endpoint_no AND a.order_key = g.order_key AND a.position > g.position
        ORDER BY a.position LIMIT 1) AS next_id,
       coalesce(CASE WHEN g.order_key = 0 THEN t.position ELSE k.position END < g.position
                OR g.position > known.position, false) AS is_held,
       (SELECT last_value FROM dispatcher.replica_joins) AS joins_count
FROM given AS g
CROSS JOIN known
LEFT JOIN of_key AS k ON k.tenant = g.tenant AND k.order_key = g.order_key
LEFT JOIN of_tenant AS t ON t.tenant = g.tenant
