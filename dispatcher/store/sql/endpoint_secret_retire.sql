-- Turns the current secret into an old one that goes on signing for a while, and forgets those whose time is over.
--
-- Parameters: $1 endpoint id, $2 seconds that it signs on. Index: endpoint_secret_of.
-- Locks: the rows, routing's row.
WITH forgotten AS (
    DELETE FROM dispatcher.endpoint_secret
    WHERE endpoint_id = $1 AND role = 'previous' AND expires_at <= clock_timestamp()
)
UPDATE dispatcher.endpoint_secret
SET role = 'previous', expires_at = clock_timestamp() + make_interval(secs => $2::float8)
WHERE endpoint_id = $1 AND role = 'current'
