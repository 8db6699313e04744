-- Makes this incarnation known.
--
-- Parameters: $1 incarnation, $2 name, $3 version, $4 lease in seconds, $5 ids of the keys that it opens secrets with.
-- Index: replica_pkey. Locks: the row.
INSERT INTO dispatcher.replica (incarnation, name, version, key_ids, expires_at)
VALUES ($1, $2, $3, $5, clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (incarnation) DO NOTHING
