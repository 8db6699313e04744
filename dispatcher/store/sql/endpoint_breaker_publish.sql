-- Publishes the breakers of one replica that are not closed; those that it published before and are closed now go.
--
-- Parameters: $1 incarnation; one element a breaker: $2 endpoint id, $3 state, $4 seconds until its probe (NULL: being
--   probed). Index: endpoint_breaker_pkey; the table holds open breakers alone. Locks: the rows.
WITH closed AS (
    DELETE FROM dispatcher.endpoint_breaker AS b
    WHERE b.endpoint_id <> ALL ($2::text[])
      AND (b.incarnation = $1 OR NOT EXISTS (SELECT FROM dispatcher.replica AS r WHERE r.incarnation = b.incarnation))
)
INSERT INTO dispatcher.endpoint_breaker AS b (endpoint_id, incarnation, state, opened_at, probe_at)
SELECT g.endpoint_id, $1, g.state, clock_timestamp(), clock_timestamp() + make_interval(secs => g.probe_in_seconds)
FROM unnest($2::text[], $3::text[], $4::float8[]) AS g (endpoint_id, state, probe_in_seconds)
ON CONFLICT (endpoint_id) DO UPDATE
SET incarnation = excluded.incarnation, state = excluded.state, probe_at = excluded.probe_at
