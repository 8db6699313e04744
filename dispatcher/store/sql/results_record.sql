-- Records a batch of attempts on open deliveries: the attempt, the delivery's new state and its next due time,
-- all or nothing, and only under the token that its shard has now.
--
-- Parameters: fence $1 shards, $2 tokens (one pair a shard); results, one element each:
--   $3 shard, $4 delivery id, $5 day, $6 attempt number, $7 trigger, $8 outcome, $9 flags joined by commas,
--   $10 attempted at, $11 latency, $12 dns, $13 connect, $14 wait, $15 read (seconds), $16 reused, $17 peer,
--   $18 url, $19 response code, $20 response body, $21 error,
--   $22 new state, $23 reason, $24 schedule position, $25 seconds from now to the next attempt (NULL: as it is).
-- Returns the ids it did not record, and whether they were fenced; the others are recorded already, or their
-- delivery ended otherwise meanwhile (results_record_late.sql).
-- Index: delivery_open_pkey. Locks: FOR SHARE on the shards, against a takeover in the same moment; the open rows.
-- Due times are made here, by the database's clock. Sent again after an unknown commit it changes nothing:
-- a row moves only from the attempt before. Plan: tests/store/test_plans.py.
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, f.shard IS NULL AS fenced
    FROM unnest($3::smallint[], $4::text[], $5::date[], $6::integer[], $7::text[], $8::text[], $9::text[],
                $10::timestamptz[], $11::real[], $12::real[], $13::real[], $14::real[], $15::real[],
                $16::boolean[], $17::text[], $18::text[], $19::smallint[], $20::bytea[], $21::text[],
                $22::text[], $23::text[], $24::integer[], $25::double precision[])
        AS r (shard, delivery_id, day, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds,
              dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code,
              response_body, error, state, reason, schedule_position, due_in_seconds)
    LEFT JOIN fence AS f USING (shard)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    USING given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('succeeded', 'failed') AND NOT g.fenced
    RETURNING o.id, o.day, o.event_id, o.endpoint_id, o.event_type, o.tenant, o.profile, g.state, g.reason,
              g.attempt_number, g.schedule_position, o.created_at, o.warnings
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_number,
           schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
), waiting AS (
    UPDATE dispatcher.delivery_open AS o
    SET state = g.state, attempt_count = g.attempt_number, schedule_position = g.schedule_position,
        next_attempt_at = coalesce(clock_timestamp() + make_interval(secs => g.due_in_seconds), o.next_attempt_at)
    FROM given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('pending', 'retrying') AND NOT g.fenced
    RETURNING o.id
), done AS MATERIALIZED (
    SELECT id FROM ended UNION ALL SELECT id FROM waiting
), attempts AS (
    INSERT INTO dispatcher.attempt
        (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
         connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error)
    SELECT day, delivery_id, attempt_number, trigger, outcome, coalesce(string_to_array(flags, ','), '{}'),
           attempted_at, latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer,
           url, response_code, response_body, error
    FROM given JOIN done ON done.id = given.delivery_id
)
SELECT delivery_id, fenced FROM given WHERE NOT EXISTS (SELECT FROM done WHERE done.id = given.delivery_id)
