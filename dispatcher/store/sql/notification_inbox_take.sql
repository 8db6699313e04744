-- Takes operational events out of the inbox, oldest first. Parameters: $1 how many. Index: notification_inbox_pkey.
-- Locks: the rows.
WITH taken AS (
    DELETE FROM dispatcher.notification_inbox
    WHERE position IN (SELECT position FROM dispatcher.notification_inbox ORDER BY position LIMIT $1)
    RETURNING position, type, tenant, data
)
SELECT type, tenant, data::text FROM taken ORDER BY position
