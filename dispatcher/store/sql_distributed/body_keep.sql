-- Inserts bodies that were made after fan-out; one that exists stays as it is.
--
-- Parameters, one element each: $1 days, $2 event ids, $3 profiles, $4 bytes. Locks: the new rows, and the events against
-- erasure (locked_events).
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::date[], $2::text[], $3::text[], $4::bytea[]) AS g (day, event_id, profile, bytes)
), alive AS MATERIALIZED (
    SELECT day, id FROM dispatcher.read_event(format(
        'SELECT * FROM dispatcher.event WHERE day = ANY (%L::date[]) AND id = ANY (%L::text[]) AND erased_at IS NULL',
        $1::date[], dispatcher.locked_events($2::text[])))
)
SELECT dispatcher.change_history(format(
    'INSERT INTO dispatcher.body (day, event_id, profile, bytes)'
    ' VALUES (%L::date, %L::text, %L::text, %L::bytea) ON CONFLICT DO NOTHING', g.day, g.event_id, g.profile, g.bytes))
FROM given AS g JOIN alive AS a ON a.day = g.day AND a.id = g.event_id
ORDER BY g.day, g.event_id, g.profile
