-- Which of these deliveries have not ended. Parameters: $1 ids. Index: delivery_open_pkey. Locks: none.
SELECT o.id FROM dispatcher.delivery_open AS o WHERE o.id = ANY ($1::uuid[])
