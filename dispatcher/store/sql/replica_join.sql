-- Makes this incarnation known. Parameters: $1 incarnation, $2 name, $3 version, $4 lease in seconds. Locks: the row.
INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (incarnation) DO NOTHING
