-- Says that a dispatcher sleeps: producers that cannot share this lock announce their commits.
-- Parameters: none. Locks: advisory (1684632432, 1), exclusive, for the session; tried, never waited for.
SELECT pg_try_advisory_lock(1684632432, 1)
