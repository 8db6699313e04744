-- Reads the oldest waiting events without claiming them; outbox_fan_out.sql claims those that still wait.
--
-- Parameters: $1 events at most, $2 bytes of data at most (one event is read whatever its size), $3 the position to begin
--   at (0: all; see core/floor.py). Returns the columns of outbox_claim.sql, whose comments apply.
-- The order is that of the index, through the LIMIT and the sum: no node sorts or keeps rows. Index: outbox_waiting.
-- Locks: none.
SELECT id, type, data::text AS data, tenant, occurred_at, inserted_at,
       CASE WHEN labels <> '{}' THEN labels::text END AS labels,
       CASE WHEN traceparent ~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END
           AS traceparent,
       ordering_key, now() AS accepted_at, (SELECT version FROM dispatcher.routing) AS routing_version, position
FROM (
    SELECT *, sum(bytes) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
    FROM (
        SELECT position, id, type, tenant, data, occurred_at, ordering_key, labels, traceparent, inserted_at, bytes
        FROM dispatcher.outbox
        WHERE consumed_at IS NULL AND position >= $3
        ORDER BY position
        LIMIT $1
    ) AS waiting
) AS measured
WHERE bytes_before < $2
ORDER BY position
