-- Postpones an e-mail that failed. Parameters: $1 id, $2 seconds. Index: notification_mail_pkey. Locks: the row.
UPDATE dispatcher.notification_mail SET due_at = clock_timestamp() + make_interval(secs => $2) WHERE id = $1
