-- Notes the warnings of a body that was made after fan-out.
--
-- Parameters: $1 delivery id, $2 warnings. Index: delivery_open_pkey. Locks: the row.
UPDATE dispatcher.delivery_open SET warnings = $2 WHERE id = $1::uuid
