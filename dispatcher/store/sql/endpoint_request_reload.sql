-- Requests that the schedule of an endpoint is read again, because its ordering was changed.
--
-- Parameters: $1 endpoint id, $2 who asks. Index: endpoint_pkey, endpoint_request_pkey. Locks: the row.
INSERT INTO dispatcher.endpoint_request (endpoint_no, kind, requested_by)
SELECT number, 'reload', $2 FROM dispatcher.endpoint WHERE id = $1
ON CONFLICT (endpoint_no, kind) DO UPDATE
SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
