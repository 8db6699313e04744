-- Renews this incarnation's lease. Returns the number of other living replicas, the shards that this one holds with
-- their tokens, and the number of free shards. No row: the lease was lost and has been expired.
--
-- Parameters: $1 incarnation, $2 lease in seconds. Locks: the row.
WITH renewed AS (
    UPDATE dispatcher.replica
    SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $2::float8)
    WHERE incarnation = $1
    RETURNING incarnation
)
SELECT (SELECT count(*) FROM dispatcher.replica AS r, renewed
        WHERE r.expires_at > clock_timestamp() AND r.incarnation <> renewed.incarnation) AS others,
       ARRAY(SELECT shard FROM dispatcher.shard WHERE owner = $1 ORDER BY shard) AS shards,
       ARRAY(SELECT token FROM dispatcher.shard WHERE owner = $1 ORDER BY shard) AS tokens,
       (SELECT count(*) FROM dispatcher.shard AS s
        WHERE NOT EXISTS (SELECT FROM dispatcher.replica AS r
                          WHERE r.incarnation = s.owner AND r.expires_at > clock_timestamp())) AS free
FROM renewed
