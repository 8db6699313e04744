-- Records a test event, its body, its delivery and its one attempt, all or nothing.
--
-- Parameters: $1 day; event $2 id, $3 type, $4 tenant, $5 data (JSON text), $6 occurred at; $7 profile, $8 body;
--   delivery $9 id, $10 endpoint id, $11 code of the type, $12 state, $13 reason (codes), $14 warnings;
--   attempt $15 outcome (code), $16 flags, $17 attempted at, $18 latency, $19 dns, $20 connect, $21 wait, $22 read
--   (seconds), $23 reused, $24 peer, $25 response code, $26 response body, $27 error;
--   delivery $28 finished at; attempt $29 response headers.
-- Locks: none but the new rows. Trigger 4 is `test`. The attempt is a row of its own where it has a response or an error.
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, test, profile, bytes)
    SELECT $1, $2, $3, $4, $5::text::json, $6, '{}', $6, $6, true,
           CASE WHEN own_bodies THEN $7 || '@' || number ELSE $7 END, $8
    FROM dispatcher.endpoint WHERE id = $10
), whose AS (
    SELECT number, revision, $26::bytea IS NULL AND $27::text IS NULL AND $29::bytea IS NULL AS is_plain FROM dispatcher.endpoint WHERE id = $10
), delivered AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, reason, test, attempt_count, schedule_position,
         finished_at, warnings, attempted_at, revision, trigger, outcome, flags, latency_seconds, dns_seconds,
         connect_seconds, wait_seconds, read_seconds, reused, peer, response_code)
    SELECT $9::uuid, $1, $2, number, $11, $12, $13, true, 1, 0, $28, $14,
           CASE WHEN is_plain THEN $17::timestamptz END, revision, 4, $15::smallint, $16::text[], $18::real, $19::real,
           $20::real, $21::real, $22::real, $23::boolean, $24::text, $25::smallint
    FROM whose
)
INSERT INTO dispatcher.attempt
    (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds,
     dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision, response_code, response_body,
     error, response_headers)
SELECT $1, $2, number, $9::uuid, 1, 4, $15::smallint, $16, $17::timestamptz, $18, $19, $20, $21, $22, $23, $24, revision,
       $25, $26, $27, $29
FROM whose
WHERE NOT is_plain
