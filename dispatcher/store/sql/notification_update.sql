-- Updates a notification rule. Parameters: $1 id, $2 name, $3 event types, $4 endpoint ids, $5 target endpoint,
-- $6 e-mail address, $7 recipient, $8 quiet seconds, $9 digest seconds. Index: notification_pkey. Locks: the row.
UPDATE dispatcher.notification
SET name = $2, event_types = $3, endpoint_ids = $4, to_endpoint_id = $5, email = $6, recipient = $7,
    quiet_seconds = $8, digest_seconds = $9, updated_at = clock_timestamp()
WHERE id = $1
