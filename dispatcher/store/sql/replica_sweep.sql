-- Forgets replicas whose lease ended an hour ago. Parameters: none. Locks: the rows deleted.
DELETE FROM dispatcher.replica WHERE expires_at < clock_timestamp() - interval '1 hour'
