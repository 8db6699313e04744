-- Blanks an event of one day: its data, labels and ordering key, its bodies, and what receivers answered. Its ids and
-- the states of its deliveries stay; those that wait are cancelled, and their dispatcher told to forget them.
--
-- Parameters: $1 event id, $2 day, $3 who. Returns how many bodies, answers and waiting deliveries there were.
-- Index: event_pkey, body_pkey, delivery_open_event_endpoint, delivery_done_event_endpoint, attempt_pkey.
-- Locks: the rows.
WITH blanked AS (
    UPDATE dispatcher.event
    SET data = '{}', labels = '{}', ordering_key = NULL, erased_at = coalesce(erased_at, clock_timestamp())
    WHERE day = $2 AND id = $1
), bodies AS (
    DELETE FROM dispatcher.body WHERE day = $2 AND event_id = $1 RETURNING 1
), ended AS (
    DELETE FROM dispatcher.delivery_open WHERE event_id = $1 AND day = $2 RETURNING *
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', 'event_erased',
           attempt_count, schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
), its_deliveries AS MATERIALIZED (
    SELECT id FROM ended
    UNION ALL
    SELECT id FROM dispatcher.delivery_done WHERE event_id = $1 AND day = $2
), unasked AS (
    DELETE FROM dispatcher.delivery_request
    WHERE delivery_id IN (SELECT id FROM its_deliveries) AND kind = 'resend'
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, endpoint_id, requested_by)
    SELECT id, 'cancel', day, endpoint_id, $3 FROM ended
    ON CONFLICT (delivery_id, kind) DO NOTHING
), answers AS (
    UPDATE dispatcher.attempt
    SET response_body = NULL
    WHERE day = $2 AND delivery_id IN (SELECT id FROM its_deliveries) AND response_body IS NOT NULL
    RETURNING 1
)
SELECT (SELECT count(*) FROM bodies) AS bodies, (SELECT count(*) FROM answers) AS answers,
       (SELECT count(*) FROM ended) AS cancelled
