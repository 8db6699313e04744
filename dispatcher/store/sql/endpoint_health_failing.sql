-- The endpoints that fail: the table has a row only while one does. Parameters: none. Locks: none.
SELECT endpoint_id FROM dispatcher.endpoint_health
