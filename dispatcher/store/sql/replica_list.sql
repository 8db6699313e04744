-- The replicas whose lease runs, with their shards and what they published of their memory.
--
-- Parameters: none. Index: replica_figures_pkey; both tables hold some rows. Locks: none.
SELECT r.incarnation, r.name, r.version, r.started_at, r.expires_at,
       extract(epoch FROM clock_timestamp() - r.renewed_at)::float8 AS renewed_seconds_ago,
       (SELECT count(*) FROM dispatcher.shard AS s WHERE s.owner = r.incarnation) AS shards_count,
       f.at AS figures_at, f.figures::text AS figures
FROM dispatcher.replica AS r
LEFT JOIN dispatcher.replica_figures AS f ON f.incarnation = r.incarnation
WHERE r.expires_at > clock_timestamp()
ORDER BY r.name, r.started_at
LIMIT 100
