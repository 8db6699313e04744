-- One delivery, open or ended.
--
-- Parameters: $1 id, $2 the days that its id allows, $3 tenant (NULL: any).
-- Index: delivery_open_pkey, delivery_done_pkey of those days. Locks: none.
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, NULL::text AS reason, false AS test,
       attempt_count, schedule_position, next_attempt_at, created_at, NULL::timestamptz AS finished_at, warnings
FROM dispatcher.delivery_open
WHERE id = $1 AND ($3::text IS NULL OR tenant = $3)
UNION ALL
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test,
       attempt_count, schedule_position, NULL, created_at, finished_at, warnings
FROM dispatcher.delivery_done
WHERE id = $1 AND day = ANY ($2::date[]) AND ($3::text IS NULL OR tenant = $3)
