-- Records an attempt of a delivery that had ended meanwhile, under the token of its shard.
--
-- Parameters: as those of the ordinary statement. Locks: the delivery's row.
WITH fence AS MATERIALIZED (
    SELECT shard FROM dispatcher.shard WHERE shard = $1 AND token = $2 FOR SHARE
), changed AS MATERIALIZED (
    SELECT dispatcher.change_history(format(
        'UPDATE dispatcher.delivery_done SET attempt_count = %2$L::integer,'
        ' schedule_position = schedule_position + CASE WHEN %3$L::smallint = 1 THEN 1 ELSE 0 END,'
        ' state = CASE WHEN %4$L::smallint = 1 THEN 3 ELSE state END,'
        ' reason = CASE WHEN %4$L::smallint = 1 THEN NULL ELSE reason END,'
        ' finished_at = CASE WHEN %4$L::smallint = 1 AND state <> 3 THEN %1$L::timestamptz ELSE finished_at END'
        ' WHERE day = %5$L::date AND event_id = %6$L::text AND endpoint_no = %7$L::integer AND attempt_count < %2$L::integer',
        clock_timestamp(), $7::integer, $8::smallint, $9::smallint, $3::date, $4::text, $5::integer)) AS rows_count
    FROM fence
), erased AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM dispatcher.read_event(format(
        'SELECT * FROM dispatcher.event WHERE day = %L::date AND id = %L::text AND erased_at IS NOT NULL',
        $3::date, $4::text))) AS is_erased
    FROM changed WHERE rows_count > 0
), recorded AS MATERIALIZED (
    SELECT dispatcher.change_history(format(
        'INSERT INTO dispatcher.attempt (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, flags,'
        ' attempted_at, latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, revision,'
        ' response_code, response_body, error, response_headers)'
        ' VALUES (%L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L, %L)'
        ' ON CONFLICT DO NOTHING',
        $3::date, $4::text, $5::integer, $6::uuid, $7::integer, $8::smallint, $9::smallint, $10::text[], $11::timestamptz,
        $12::real, $13::real, $14::real, $15::real, $16::real, $17::boolean, $18::text, $19::integer, $20::smallint,
        CASE WHEN NOT is_erased THEN $21::bytea END, $22::text, CASE WHEN NOT is_erased THEN $23::bytea END)) AS rows_count
    FROM erased
)
SELECT EXISTS (SELECT FROM recorded WHERE rows_count > 0) AS recorded
