-- Deletes a problem that is over. Parameters: $1 rule, $2 endpoint, $3 event type. Index: notification_problem_pkey.
-- Locks: the row.
DELETE FROM dispatcher.notification_problem WHERE notification_id = $1 AND endpoint_id = $2 AND event_type = $3
