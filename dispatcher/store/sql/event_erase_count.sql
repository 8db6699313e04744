-- What erasing an event would take away, of all days and of the outbox.
--
-- Parameters: $1 event id, $2 tenant (NULL: any); one element for each day of events_of_id: $3 days, $4 and $5 the
-- lowest and highest id that its deliveries can have.
-- Index: event_pkey, body_pkey, outbox_pkey, attempt_pkey, ranges of delivery_open_pkey. Locks: none.
WITH found AS MATERIALIZED (
    SELECT e.day, e.bytes IS NOT NULL AS has_body, g.low, g.high
    FROM unnest($3::date[], $4::uuid[], $5::uuid[]) AS g (day, low, high)
    JOIN dispatcher.event AS e ON e.day = ANY ($3::date[]) AND e.day = g.day AND e.id = $1
    WHERE $2::text IS NULL OR e.tenant = $2
)
SELECT (SELECT count(*) FROM found)
           + (SELECT count(*) FROM dispatcher.outbox
              WHERE id = $1 AND data IS NOT NULL AND ($2::text IS NULL OR tenant = $2)) AS events,
       (SELECT count(*) FROM found WHERE has_body)
           + (SELECT count(*) FROM found JOIN dispatcher.body AS b
            ON b.day = ANY ($3::date[]) AND b.day = found.day AND b.event_id = $1) AS bodies,
       (SELECT count(*) FROM found
        JOIN dispatcher.attempt AS a ON a.day = ANY ($3::date[]) AND a.day = found.day AND a.event_id = $1
        WHERE a.response_body IS NOT NULL OR a.response_headers IS NOT NULL) AS answers,
       (SELECT count(*) FROM found
        JOIN dispatcher.delivery_open AS o
          ON o.id BETWEEN found.low AND found.high AND o.day = found.day AND o.event_id = $1) AS cancelled
