-- Records when a rule had its last digest. Parameters: $1 id, $2 when. Index: notification_pkey. Locks: the row.
UPDATE dispatcher.notification SET digested_at = $2 WHERE id = $1
