-- Seconds until the first lease ends, negative if it has ended; NULL: there is no lease.
-- Parameters: none. Index: pull_lease_end. Locks: none.
SELECT extract(epoch FROM min(leased_until) - clock_timestamp())::float8 FROM dispatcher.pull_lease
