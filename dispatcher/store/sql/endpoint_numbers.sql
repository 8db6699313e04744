-- The numbers of a tenant's endpoints, deleted ones included. Parameters: $1 tenant, $2 rows at most.
-- Index: none, there are thousands at most. Locks: none.
SELECT number FROM dispatcher.endpoint WHERE tenant = $1 LIMIT $2
