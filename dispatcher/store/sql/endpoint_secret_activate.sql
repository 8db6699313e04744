-- Makes the staged secret the current one; the current one was destroyed before.
--
-- Parameters: $1 endpoint id. Index: endpoint_secret_one. Locks: the row, routing's row.
UPDATE dispatcher.endpoint_secret SET role = 'current' WHERE endpoint_id = $1 AND role = 'staged'
