-- Inserts bodies that were made after fan-out; one that exists stays as it is.
--
-- Parameters, one element each: $1 days, $2 event ids, $3 profiles, $4 bytes. Index: body_pkey. Locks: the new rows;
-- FOR SHARE on the events, so that none of them is erased in the same moment.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::date[], $2::text[], $3::text[], $4::bytea[]) AS g (day, event_id, profile, bytes)
), alive AS MATERIALIZED (
    SELECT e.day, e.id FROM dispatcher.event AS e
    WHERE e.day = ANY ($1::date[]) AND (e.day, e.id) IN (SELECT day, event_id FROM given) AND e.erased_at IS NULL
    ORDER BY e.day, e.id
    FOR SHARE
)
INSERT INTO dispatcher.body (day, event_id, profile, bytes)
SELECT g.day, g.event_id, g.profile, g.bytes
FROM given AS g JOIN alive AS a ON a.day = g.day AND a.id = g.event_id
ORDER BY g.day, g.event_id, g.profile
ON CONFLICT (day, event_id, profile) DO NOTHING
