-- Deletes requests about endpoints that were carried out; one that was made again meanwhile stays.
--
-- Parameters, one element each: $1 numbers of the endpoints, $2 kinds, $3 when they were requested.
-- Index: endpoint_request_pkey. Locks: the rows deleted.
DELETE FROM dispatcher.endpoint_request AS r
USING unnest($1::integer[], $2::text[], $3::timestamptz[]) AS g (endpoint_no, kind, requested_at)
WHERE r.endpoint_no = g.endpoint_no AND r.kind = g.kind AND r.requested_at <= g.requested_at
