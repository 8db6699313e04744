-- Raises an event for each delivery that failed, in the transaction that ends them (store/results.py).
--
-- Parameters, one element each: $1 delivery ids (text), $2 event ids, $3 event types, $4 numbers of the endpoints,
--   $5 reasons, $6 attempts, $7 outcomes and $8 response codes of their last attempts.
-- Deliveries of the dispatcher's own events raise none. Otherwise a dead receiver of these events would cause an
-- endless series of them.
-- Index: endpoint_number_key. Locks: none but the new rows.
INSERT INTO dispatcher.outbox (operational, type, tenant, data)
SELECT true, 'dispatcher.delivery.failed', p.tenant, (
    SELECT row_to_json(r) FROM (
        SELECT p.id AS endpoint_id, p.name AS endpoint_name, f.reason,
               to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
               f.delivery_id, f.event_id, f.event_type, f.attempt_count,
               f.outcome AS last_outcome, f.response_code AS last_response_code) AS r)
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::integer[], $7::text[], $8::smallint[])
    AS f (delivery_id, event_id, event_type, endpoint_no, reason, attempt_count, outcome, response_code)
JOIN dispatcher.endpoint AS p ON p.number = f.endpoint_no
WHERE f.event_type NOT LIKE 'dispatcher.%'
