-- Records one attempt on a delivery that has ended: a resend, or one that was cancelled while in flight.
--
-- Parameters: $1 shard, $2 token, then the attempt's columns: $3 day, $4 event id, $5 number of the endpoint,
--   $6 delivery id, $7 attempt number, $8 trigger, $9 outcome (codes), $10 flags, $11 attempted at, $12 latency, $13 dns,
--   $14 connect, $15 wait, $16 read (seconds), $17 reused, $18 peer, $19 revision, $20 response code, $21 response body,
--   $22 error, $23 response headers.
-- Returns whether the attempt was recorded (false: fenced, gone by retention, or recorded before).
-- Index: delivery_done_pkey, attempt_pkey. Locks: FOR SHARE on the shard, the delivery's row.
-- A number that the delivery has counted already was recorded before. The response about an event that was erased
-- meanwhile is not kept. A 2xx makes it succeeded, whatever it was; a failure changes no state and starts no schedule.
WITH fence AS MATERIALIZED (
    SELECT shard FROM dispatcher.shard WHERE shard = $1 AND token = $2 FOR SHARE
), changed AS (
    UPDATE dispatcher.delivery_done AS d
    SET attempt_count = $7,
        schedule_position = schedule_position + CASE WHEN $8::smallint = 1 THEN 1 ELSE 0 END,
        state = CASE WHEN $9::smallint = 1 THEN 3 ELSE state END,
        reason = CASE WHEN $9::smallint = 1 THEN NULL ELSE reason END,
        finished_at = CASE WHEN $9::smallint = 1 AND state <> 3 THEN clock_timestamp() ELSE finished_at END
    FROM fence
    WHERE d.day = $3 AND d.event_id = $4 AND d.endpoint_no = $5 AND d.attempt_count < $7
    RETURNING d.id
), recorded AS (
    INSERT INTO dispatcher.attempt
        (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, flags, attempted_at,
         latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision,
         response_code, response_body, error, response_headers)
    SELECT $3, $4, $5, $6::uuid, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
           CASE WHEN e.erased_at IS NULL THEN $21::bytea END, $22, CASE WHEN e.erased_at IS NULL THEN $23::bytea END
    FROM changed LEFT JOIN dispatcher.event AS e ON e.day = $3 AND e.id = $4
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT EXISTS (SELECT FROM recorded) AS recorded
