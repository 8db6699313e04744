-- All problems that rules follow, with whether each is over without an event: its endpoint is deleted, has been
-- resumed, or has no failures any more. Parameters: none. Index: endpoint_pkey, endpoint_health_pkey. Locks: none.
SELECT p.notification_id, p.endpoint_id, p.event_type, p.endpoint_name, p.tenant, p.reason, p.started_at, p.seen_at,
       p.events_count, p.announced_at, p.ended_at, p.quiet_until,
       e.id IS NULL
       OR (p.event_type = 'dispatcher.endpoint.disabled' AND e.state <> 'disabled')
       OR (p.event_type = 'dispatcher.endpoint.failing' AND h.endpoint_id IS NULL) AS is_over
FROM dispatcher.notification_problem AS p
LEFT JOIN dispatcher.endpoint AS e ON e.id = p.endpoint_id AND e.deleted_at IS NULL
LEFT JOIN dispatcher.endpoint_health AS h ON h.endpoint_id = p.endpoint_id
