-- What some deliveries need for a body: the event to make it from, or nothing, because it exists.
--
-- Parameters: $1 delivery ids, $2 their days. Returns no row for a delivery that is gone or whose event was erased.
-- A delivery that was attempted before its endpoint had a mask has the body of the profile (delivery_open_load.sql).
-- Index: delivery_open_pkey, delivery_done_id, event_pkey, body_pkey. Locks: none.
SELECT v.id AS delivery_id, v.day, v.profile, v.body_key, v.include, v.exclude, v.has_body, e.id, e.type,
       CASE WHEN NOT v.has_body
            THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8'))
       END AS data, e.tenant, e.occurred_at, e.inserted_at, e.labels::text AS labels, e.traceparent
FROM (
    SELECT d.id, d.day, d.event_id, k.profile, k.body_key, k.include, k.exclude,
           EXISTS (SELECT FROM dispatcher.event AS f
                   WHERE f.day = ANY ($2::date[]) AND f.day = d.day AND f.id = d.event_id
                     AND f.profile IN (k.body_key, k.earlier))
           OR EXISTS (SELECT FROM dispatcher.body AS b
                      WHERE b.day = ANY ($2::date[]) AND b.day = d.day AND b.event_id = d.event_id
                        AND b.profile IN (k.body_key, k.earlier)) AS has_body
    FROM unnest($1::uuid[], $2::date[]) AS w (id, day)
    CROSS JOIN LATERAL (
        SELECT * FROM dispatcher.delivery_row AS r WHERE r.day = ANY ($2::date[]) AND r.id = w.id AND r.day = w.day
    ) AS d
    CROSS JOIN LATERAL (
        SELECT p.profile, p.include, p.exclude,
               CASE WHEN p.own_bodies THEN p.profile || '@' || p.number ELSE p.profile END AS body_key,
               CASE WHEN p.own_bodies AND d.attempt_count > 0 THEN p.profile END AS earlier
        FROM dispatcher.endpoint AS p WHERE p.number = d.endpoint_no
    ) AS k
) AS v
JOIN dispatcher.event AS e ON e.day = ANY ($2::date[]) AND e.day = v.day AND e.id = v.event_id
WHERE v.has_body OR e.erased_at IS NULL
