-- The bytes that every attempt of a delivery sends: its own ones where its endpoint has a mask, else those of the profile.
--
-- Parameters: $1 day, $2 event id, $3 endpoint id, $4 whether it was attempted: a delivery without a body of its own was
--   then attempted before its endpoint had a mask.
-- Index: endpoint_pkey, event_pkey, body_pkey of that day. Locks: none.
SELECT bytes
FROM (SELECT CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS own,
             CASE WHEN p.own_bodies AND $4 THEN p.profile END AS earlier
      FROM dispatcher.endpoint AS p WHERE p.id = $3) AS k
CROSS JOIN LATERAL (
    SELECT e.profile, e.bytes FROM dispatcher.event AS e
    WHERE e.day = $1 AND e.id = $2 AND e.profile IN (k.own, k.earlier)
    UNION ALL
    SELECT b.profile, b.bytes FROM dispatcher.body AS b
    WHERE b.day = $1 AND b.event_id = $2 AND b.profile IN (k.own, k.earlier)
) AS f
ORDER BY f.profile = k.own DESC
LIMIT 1
