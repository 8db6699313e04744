-- Says of deliveries that they have failed, in the transaction that ends them (store/deliveries.py).
--
-- Parameters, one element each: $1 days, $2 delivery ids, $3 outcomes and $4 response codes of their last attempts.
-- Deliveries of the dispatcher's own events say nothing, or a dead receiver of them would hear of itself for ever.
-- Index: delivery_done_pkey, endpoint_pkey. Locks: none but the new rows.
INSERT INTO dispatcher.outbox (operational, type, tenant, data)
SELECT true, 'dispatcher.delivery.failed', d.tenant, (
    SELECT row_to_json(r) FROM (
        SELECT p.id AS endpoint_id, p.name AS endpoint_name, d.reason,
               to_char(d.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
               d.id AS delivery_id, d.event_id, d.event_type, d.attempt_count,
               f.outcome AS last_outcome, f.response_code AS last_response_code) AS r)
FROM unnest($1::date[], $2::text[], $3::text[], $4::smallint[]) AS f (day, delivery_id, outcome, response_code)
JOIN dispatcher.delivery_done AS d ON d.day = ANY ($1::date[]) AND d.day = f.day AND d.id = f.delivery_id AND d.state = 'failed'
JOIN dispatcher.endpoint AS p ON p.id = d.endpoint_id
WHERE d.event_type NOT LIKE 'dispatcher.%'
