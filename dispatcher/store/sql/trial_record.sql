-- Records a test event, its body, its delivery and its one attempt, all or nothing.
--
-- Parameters: $1 day; event $2 id, $3 type, $4 tenant, $5 data (JSON text), $6 occurred at; $7 profile, $8 body;
--   delivery $9 id, $10 endpoint id, $11 state, $12 reason, $13 warnings;
--   attempt $14 outcome, $15 flags, $16 attempted at, $17 latency, $18 dns, $19 connect, $20 wait, $21 read (seconds),
--   $22 reused, $23 peer, $24 url, $25 response code, $26 response body, $27 error;
--   delivery $28 finished at.
-- Locks: none but the new rows.
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, test)
    VALUES ($1, $2, $3, $4, $5::text::json, $6, '{}', $6, $6, true)
), body AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES ($1, $2, $7, $8)
), delivered AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    VALUES ($9, $1, $2, $10, $3, $4, $7, $11, $12, true, 1, 0, $6, $28, $13)
)
INSERT INTO dispatcher.attempt
    (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
     connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error)
VALUES ($1, $9, 1, 'test', $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)
