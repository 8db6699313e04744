-- Ends leases that were taken over, once their attempts are recorded.
--
-- Parameters: $1 lease ids. Index: pull_lease_lease_id_key. Locks: the rows.
DELETE FROM dispatcher.pull_lease WHERE lease_id = ANY ($1::uuid[])
