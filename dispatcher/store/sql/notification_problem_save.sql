-- Saves a problem. Parameters: $1 rule, $2 endpoint, $3 event type, $4 name of the endpoint, $5 tenant, $6 reason,
-- $7 started, $8 seen, $9 events, $10 announced, $11 ended, $12 quiet until. Index: notification_problem_pkey.
-- Locks: the row.
INSERT INTO dispatcher.notification_problem (notification_id, endpoint_id, event_type, endpoint_name, tenant, reason,
                                             started_at, seen_at, events_count, announced_at, ended_at, quiet_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (notification_id, endpoint_id, event_type) DO UPDATE
SET endpoint_name = $4, reason = $6, started_at = $7, seen_at = $8, events_count = $9, announced_at = $10,
    ended_at = $11, quiet_until = $12
