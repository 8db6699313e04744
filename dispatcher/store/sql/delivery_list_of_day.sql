-- The ended deliveries of a day with some ids, in no order: the rows of a page whose ids were picked before.
--
-- Parameters: $1 ids, $2 the day, a constant of a plan that is kept (store/kept_plans.py).
-- The plan may be made while the day has hardly any rows, and be in use when it has many, until the partition is analyzed
-- again. By such estimates every index costs the same, so LIMIT keeps both look-ups from reading the day for a join, and
-- ORDER BY has the one index that begins with the id. Without a sort at the end, the rows are read by the client while
-- others are still looked up.
-- Index: delivery_done_id and event_pkey of the day, endpoint_number. Locks: none.
SELECT d.id, d.day, d.event_id, p.id AS endpoint_id, e.type AS event_type, p.tenant, p.profile, d.state, d.reason,
       d.test, d.attempt_count, d.schedule_position, NULL::timestamptz AS next_attempt_at, d.finished_at, d.warnings,
       e.labels::text AS labels, e.ordering_key
FROM unnest($1::uuid[]) AS n (id)
CROSS JOIN LATERAL (SELECT * FROM dispatcher.delivery_done AS v
                    WHERE v.day = $2::date AND v.id >= n.id AND v.id <= n.id ORDER BY v.id LIMIT 1) AS d
LEFT JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
LEFT JOIN LATERAL (SELECT v.type, v.labels, v.ordering_key FROM dispatcher.event AS v
                   WHERE v.day = $2 AND v.id = d.event_id LIMIT 1) AS e ON true
