-- How many of some deliveries can be sent once more: the endpoint is there, and the body.
--
-- Parameters: $1 their days, $2 endpoints' ids, $3 events' ids, $4 profiles. Index: endpoint_pkey, event_pkey,
-- body_pkey. Locks: none.
SELECT count(*)
FROM unnest($1::date[], $2::text[], $3::text[], $4::text[]) AS g (day, endpoint_id, event_id, profile)
JOIN dispatcher.endpoint AS e ON e.id = g.endpoint_id AND e.deleted_at IS NULL
WHERE EXISTS (SELECT FROM dispatcher.event AS f
              WHERE f.day = ANY ($1::date[]) AND f.day = g.day AND f.id = g.event_id AND f.profile = g.profile)
   OR EXISTS (SELECT FROM dispatcher.body AS b
              WHERE b.day = ANY ($1::date[]) AND b.day = g.day AND b.event_id = g.event_id AND b.profile = g.profile)
