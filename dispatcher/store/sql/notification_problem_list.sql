-- The problems that a rule follows now, the newest first.
--
-- Parameters: $1 the rule's id, $2 rows at most. Index: notification_problem_pkey. Locks: none.
SELECT p.event_type, p.endpoint_id, p.endpoint_name, p.tenant, p.reason, p.started_at, p.announced_at, p.events_count
FROM dispatcher.notification_problem AS p
WHERE p.notification_id = $1 AND p.ended_at IS NULL
ORDER BY p.started_at DESC, p.endpoint_id, p.event_type
LIMIT $2
