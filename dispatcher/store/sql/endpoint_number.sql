-- The number of an endpoint. Parameters: $1 id. Index: endpoint_pkey. Locks: none.
SELECT number FROM dispatcher.endpoint WHERE id = $1
