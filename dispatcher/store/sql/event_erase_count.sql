-- What erasing an event would take away, of all days and of the outbox.
--
-- Parameters: $1 event id, $2 tenant (NULL: any), $3 the days on which it was accepted. Index: event_pkey, body_pkey, outbox_pkey, the deliveries' keys.
-- Locks: none.
WITH found AS MATERIALIZED (
    SELECT day FROM dispatcher.event WHERE day = ANY ($3::date[]) AND id = $1 AND ($2::text IS NULL OR tenant = $2)
)
SELECT (SELECT count(*) FROM found)
           + (SELECT count(*) FROM dispatcher.outbox
              WHERE id = $1 AND data IS NOT NULL AND ($2::text IS NULL OR tenant = $2)) AS events,
       (SELECT count(*) FROM found JOIN dispatcher.body AS b ON b.day = ANY ($3::date[]) AND b.day = found.day AND b.event_id = $1) AS bodies,
       (SELECT count(*) FROM found
        JOIN dispatcher.delivery AS d ON d.day = ANY ($3::date[]) AND d.day = found.day AND d.event_id = $1
        JOIN dispatcher.attempt AS a ON a.day = ANY ($3::date[]) AND a.day = d.day AND a.delivery_id = d.id
        WHERE a.response_body IS NOT NULL) AS answers,
       (SELECT count(*) FROM found
        JOIN dispatcher.delivery_open AS o ON o.day = found.day AND o.event_id = $1) AS cancelled
