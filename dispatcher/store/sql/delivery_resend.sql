-- Asks for one more attempt, unless the endpoint is deleted. Returns the endpoint's id where it was asked.
--
-- Parameters: $1 delivery id, $2 day, $3 endpoint id, $4 who asks, $5 event id. A request that waits is this one, asked
-- now: else an attempt in flight that began between the two would be taken for its response.
-- Index: endpoint_pkey, delivery_request_pkey. Locks: FOR SHARE on the endpoint, against its deletion.
WITH alive AS MATERIALIZED (
    SELECT id, number FROM dispatcher.endpoint WHERE id = $3 AND deleted_at IS NULL FOR SHARE
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT $1::uuid, 'resend', $2, $5, number, $4 FROM alive
    ON CONFLICT (delivery_id, kind) DO UPDATE
    SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
)
SELECT id FROM alive
