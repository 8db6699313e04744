-- Inserts a notification rule. Returns when it was created; no row: its tenant has one of that name.
--
-- Parameters: $1 id, $2 name, $3 tenant (NULL: all), $4 event types, $5 endpoint ids, $6 target endpoint, $7 e-mail
-- address, $8 recipient, $9 quiet seconds, $10 digest seconds, $11 who creates it. Index: notification_name. Locks: none.
INSERT INTO dispatcher.notification (id, name, tenant, event_types, endpoint_ids, to_endpoint_id, email, recipient,
                                     quiet_seconds, digest_seconds, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (coalesce(tenant, ''), name) DO NOTHING
RETURNING created_at
