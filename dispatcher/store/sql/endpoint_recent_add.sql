-- Adds the attempts of endpoints that fail, or failed some minutes ago, to this minute, by the database's clock.
--
-- Parameters, one element an endpoint, sorted by it so that two replicas do not deadlock: $1 endpoint id, $2 ok,
--   $3 failed, the last failure's $4 outcome and $5 response code (NULL: none failed).
-- Index: endpoint_recent_pkey. Locks: the rows.
INSERT INTO dispatcher.endpoint_recent AS r (endpoint_id, minute, ok_count, failed_count, outcome, response_code)
SELECT g.endpoint_id, date_trunc('minute', clock_timestamp()), g.ok, g.failed, g.outcome, g.response_code
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::smallint[])
    AS g (endpoint_id, ok, failed, outcome, response_code)
ON CONFLICT (endpoint_id, minute) DO UPDATE
SET ok_count = r.ok_count + excluded.ok_count,
    failed_count = r.failed_count + excluded.failed_count,
    outcome = coalesce(excluded.outcome, r.outcome),
    response_code = CASE WHEN excluded.outcome IS NULL THEN r.response_code ELSE excluded.response_code END
