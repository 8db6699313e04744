-- Leases jobs that no living replica runs, and renews leases of which half is over.
--
-- Parameters: $1 our incarnation, $2 seconds of a lease, $3 jobs at most. Index: job_unsettled. Locks: the rows; those that
-- another replica is just claiming are skipped.
UPDATE dispatcher.job
SET owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2::float8)
WHERE id IN (
    SELECT id FROM dispatcher.job
    WHERE NOT is_settled
      AND (owner IS NULL OR lease_until < clock_timestamp()
           OR owner = $1 AND lease_until < clock_timestamp() + make_interval(secs => $2::float8 / 2))
    ORDER BY created_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED)
