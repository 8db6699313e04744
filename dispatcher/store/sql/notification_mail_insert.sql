-- Queues an e-mail. Parameters: $1 rule, $2 address, $3 subject, $4 body. Locks: none but the new row.
INSERT INTO dispatcher.notification_mail (notification_id, address, subject, body) VALUES ($1, $2, $3, $4)
