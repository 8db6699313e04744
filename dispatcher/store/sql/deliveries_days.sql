-- The days of some open deliveries. Parameters: $1 delivery ids. Index: delivery_open_pkey. Locks: none.
SELECT DISTINCT o.day FROM unnest($1::text[]) AS w (id) JOIN dispatcher.delivery_open AS o ON o.id = w.id ORDER BY o.day
