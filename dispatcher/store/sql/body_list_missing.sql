-- What some deliveries need for a body: the event to make it from, or nothing, because it exists.
--
-- Parameters: $1 delivery ids, $2 their days. Returns no row for a delivery that is gone or whose event was erased.
-- Index: delivery_open_pkey, delivery_done_id, event_pkey, body_pkey. Locks: none.
SELECT v.id AS delivery_id, v.day, p.profile, v.has_body, e.id, e.type,
       CASE WHEN NOT v.has_body
            THEN coalesce(e.data::text, convert_from(substring(e.bytes FROM e.data_offset + 1 FOR e.data_length), 'UTF8'))
       END AS data, e.tenant, e.occurred_at, e.inserted_at, e.labels::text AS labels, e.traceparent
FROM (
    SELECT d.id, d.day, d.event_id, d.endpoint_no,
           EXISTS (SELECT FROM dispatcher.event AS f JOIN dispatcher.endpoint AS o ON o.profile = f.profile
                   WHERE f.day = ANY ($2::date[]) AND f.day = d.day AND f.id = d.event_id AND o.number = d.endpoint_no)
           OR EXISTS (SELECT FROM dispatcher.body AS b JOIN dispatcher.endpoint AS o ON o.profile = b.profile
                      WHERE b.day = ANY ($2::date[]) AND b.day = d.day AND b.event_id = d.event_id AND o.number = d.endpoint_no) AS has_body
    FROM unnest($1::uuid[], $2::date[]) AS w (id, day)
    CROSS JOIN LATERAL (
        SELECT * FROM dispatcher.delivery_row AS r WHERE r.day = ANY ($2::date[]) AND r.id = w.id AND r.day = w.day
    ) AS d
) AS v
JOIN dispatcher.endpoint AS p ON p.number = v.endpoint_no
JOIN dispatcher.event AS e ON e.day = ANY ($2::date[]) AND e.day = v.day AND e.id = v.event_id
WHERE v.has_body OR e.erased_at IS NULL
