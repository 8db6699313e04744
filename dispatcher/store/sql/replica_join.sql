-- Makes this incarnation known, before it claims anything. Returns the number of its join; joins are counted.
--
-- Parameters: $1 incarnation, $2 name, $3 version, $4 lease in seconds, $5 ids of the keys that it opens secrets with.
-- Index: replica_pkey. Locks: the row.
INSERT INTO dispatcher.replica (incarnation, name, version, key_ids, expires_at)
VALUES ($1, $2, $3, $5, clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (incarnation) DO UPDATE SET renewed_at = clock_timestamp()
RETURNING join_number
