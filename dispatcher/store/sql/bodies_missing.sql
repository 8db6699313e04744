-- What some deliveries need for a body: the event to make it from, or nothing, because it exists.
--
-- Parameters: $1 delivery ids, $2 their days. Returns no row for a delivery that is gone or whose event was erased.
-- Index: delivery_open_pkey, delivery_done_pkey, event_pkey, body_pkey. Locks: none.
SELECT v.id AS delivery_id, v.day, v.profile, b.event_id IS NOT NULL AS has_body, e.id, e.type,
       CASE WHEN b.event_id IS NULL THEN e.data::text END AS data, e.tenant, e.occurred_at, e.inserted_at,
       e.labels::text AS labels, e.traceparent
FROM unnest($1::text[], $2::date[]) AS w (id, day)
JOIN LATERAL (
    SELECT d.id, d.day, d.event_id, d.profile FROM dispatcher.delivery AS d WHERE d.id = w.id AND d.day = w.day
) AS v ON true
JOIN dispatcher.event AS e ON e.day = v.day AND e.id = v.event_id
LEFT JOIN dispatcher.body AS b ON b.day = v.day AND b.event_id = v.event_id AND b.profile = v.profile
WHERE b.event_id IS NOT NULL OR e.erased_at IS NULL
