-- Counts a tenant's endpoints, up to a bound. Index: endpoint_name.
--
-- Parameters: $1 tenant, $2 the most that is counted. Locks: none; an INSERT earlier in the transaction holds
--   the row of routing, so that no other transaction adds an endpoint between the two.
SELECT count(*) FROM (
    SELECT FROM dispatcher.endpoint WHERE tenant = $1 AND deleted_at IS NULL LIMIT $2
) AS endpoints
