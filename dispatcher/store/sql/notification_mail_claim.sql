-- Claims the e-mail that has been due longest, and postpones it: if this replica dies, it is due again then.
--
-- Parameters: $1 seconds to postpone it by. Index: notification_mail_due. Locks: the row.
UPDATE dispatcher.notification_mail AS m
SET due_at = clock_timestamp() + make_interval(secs => $1), attempt_count = m.attempt_count + 1
WHERE m.id = (SELECT id FROM dispatcher.notification_mail WHERE due_at <= clock_timestamp()
              ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING m.id, m.notification_id, m.address, m.subject, m.body, m.created_at, m.attempt_count
