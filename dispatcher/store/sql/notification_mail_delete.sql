-- Deletes an e-mail that was sent, or given up. Parameters: $1 id. Index: notification_mail_pkey. Locks: the row.
DELETE FROM dispatcher.notification_mail WHERE id = $1
