-- Releases the jobs of a replica that stops, so that another one continues at once.
-- Parameters: $1 our incarnation. Index: job_unsettled. Locks: the rows.
UPDATE dispatcher.job SET owner = NULL, lease_until = NULL WHERE NOT is_settled AND owner = $1
