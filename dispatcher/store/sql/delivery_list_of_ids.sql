-- The deliveries of some ids, newest first: the rows of a page whose ids were picked before.
--
-- Parameters: $1 ids, $2 their days, in the same order, $3 and $4 the first and the last of these days.
-- Planned for these days alone, or for a month by a plan that is kept (store/kept_plans.py).
-- The id is compared three times, because a partition that was never analyzed has no statistics: by its day, which is
-- compared as often, it would be read from its beginning for each id.
-- Index: delivery_open_pkey, delivery_done_id, event_pkey of these days, endpoint_number. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, d.next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM unnest($1::uuid[], $2::date[]) AS n (id, day)
CROSS JOIN LATERAL (SELECT * FROM dispatcher.delivery_row AS v
                    WHERE v.day BETWEEN $3::date AND $4::date AND v.day = n.day
                      AND v.id = n.id AND v.id >= n.id AND v.id <= n.id LIMIT 1) AS d
LEFT JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
LEFT JOIN dispatcher.event AS e ON e.day BETWEEN $3 AND $4 AND e.day = d.day AND e.id = d.event_id
ORDER BY n.id DESC
