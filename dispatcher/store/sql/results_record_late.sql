-- Records one attempt on a delivery that has ended: a resend, or one that was cancelled while in flight.
--
-- Parameters: $1 shard, $2 token, then the attempt's columns: $3 day, $4 delivery id, $5 attempt number, $6 trigger,
--   $7 outcome, $8 flags, $9 attempted at, $10 latency, $11 dns, $12 connect, $13 wait, $14 read (seconds),
--   $15 reused, $16 peer, $17 url, $18 response code, $19 response body, $20 error.
-- Returns whether the attempt's row was made (false: fenced, gone by retention, or recorded before).
-- Index: delivery_done_pkey. Locks: FOR SHARE on the shard, the delivery's row.
-- What a receiver answered about an event that was erased meanwhile is not kept.
-- A 2xx makes it succeeded, whatever it was; a failure changes no state and starts no schedule.
WITH fence AS MATERIALIZED (
    SELECT shard FROM dispatcher.shard WHERE shard = $1 AND token = $2 FOR SHARE
), recorded AS (
    INSERT INTO dispatcher.attempt
        (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
         connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error)
    SELECT $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
           CASE WHEN d.reason IS DISTINCT FROM 'event_erased' THEN $19::bytea END, $20
    FROM fence, dispatcher.delivery_done AS d
    WHERE d.day = $3 AND d.id = $4
    ON CONFLICT DO NOTHING
    RETURNING outcome
), changed AS (
    UPDATE dispatcher.delivery_done
    SET attempt_count = greatest(attempt_count, $5),
        schedule_position = schedule_position + CASE WHEN $6 = 'scheduled' THEN 1 ELSE 0 END,
        state = CASE WHEN $7 = 'ok' THEN 'succeeded' ELSE state END,
        reason = CASE WHEN $7 = 'ok' THEN NULL ELSE reason END,
        finished_at = CASE WHEN $7 = 'ok' AND state <> 'succeeded' THEN clock_timestamp() ELSE finished_at END
    FROM recorded
    WHERE day = $3 AND id = $4
)
SELECT EXISTS (SELECT FROM recorded) AS recorded
