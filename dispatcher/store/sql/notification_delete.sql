-- Deletes a notification rule, its problems and its mail. Parameters: $1 id. Index: notification_pkey. Locks: the rows.
DELETE FROM dispatcher.notification WHERE id = $1
