-- Destroys an endpoint's secret of one role. Parameters: $1 endpoint id, $2 role. Index: endpoint_secret_of.
-- Locks: the rows, routing's row.
DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = $1 AND role = $2
