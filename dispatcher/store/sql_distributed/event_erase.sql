-- Erases an event of one day: its data, labels and ordering key, its bodies, and the stored responses of receivers.
-- Its ids and the states of its deliveries stay. Waiting deliveries are cancelled, and their dispatcher is requested to
-- drop them.
--
-- Parameters: $1 event id, $2 day, $3 who, $4 and $5 the lowest and highest id that its deliveries can have. Returns
-- the numbers of bodies, responses and waiting deliveries.
-- Index: event_pkey, body_pkey, a range of delivery_open_pkey, attempt_pkey. Locks: the rows.
WITH before AS MATERIALIZED (
    SELECT bytes IS NOT NULL AS has_body
    FROM dispatcher.read_event(format('SELECT * FROM dispatcher.event WHERE day = %L::date AND id = %L::text',
                                      $2::date, (dispatcher.locked_events(ARRAY[$1::text], true))[1]))
), blanked AS MATERIALIZED (
    SELECT dispatcher.change_history(format(
        'UPDATE dispatcher.event SET data = ''{}'', data_offset = NULL, data_length = NULL, bytes = NULL, profile = NULL,'
        ' labels = ''{}'', ordering_key = NULL, erased_at = coalesce(erased_at, %L::timestamptz)'
        ' WHERE day = %L::date AND id = %L::text', clock_timestamp(), $2::date, $1::text)) AS rows_count
    FROM before
), bodies AS MATERIALIZED (
    SELECT dispatcher.change_history(format(
        'DELETE FROM dispatcher.body WHERE day = %L::date AND event_id = %L::text', $2::date, $1::text)) AS rows_count
    FROM blanked
), ended AS (
    DELETE FROM dispatcher.delivery_open
    WHERE id BETWEEN $4::uuid AND $5::uuid AND event_id = $1 AND day = $2
    RETURNING *
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position,
         finished_at, warnings)
    SELECT id, day, event_id, endpoint_no, event_type_code, 5 /* cancelled */, 9 /* event_erased */,
           attempt_count, schedule_position, clock_timestamp(), warnings
    FROM ended
), unasked AS (
    DELETE FROM dispatcher.delivery_request WHERE day = $2 AND event_id = $1 AND kind = 'resend'
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)
    SELECT id, 'cancel', day, event_id, endpoint_no, $3 FROM ended
    ON CONFLICT (delivery_id, kind) DO NOTHING
), answers AS MATERIALIZED (
    SELECT dispatcher.change_history(format(
        'UPDATE dispatcher.attempt SET response_body = NULL, response_headers = NULL WHERE day = %L::date AND event_id = %L::text'
        ' AND (response_body IS NOT NULL OR response_headers IS NOT NULL)', $2::date, $1::text)) AS rows_count
    FROM bodies
)
SELECT coalesce((SELECT rows_count FROM bodies), 0) + (SELECT count(*) FROM before WHERE has_body) AS bodies,
       coalesce((SELECT rows_count FROM answers), 0) AS answers, (SELECT count(*) FROM ended) AS cancelled
