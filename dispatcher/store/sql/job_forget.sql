-- Deletes jobs that ended long ago, a slice at a time.
-- Parameters: $1 days, $2 rows at most. Returns how many. Index: job_newest. Locks: the rows.
WITH old AS (
    SELECT id FROM dispatcher.job
    WHERE created_at < clock_timestamp() - make_interval(days => $1) AND is_settled
    ORDER BY created_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM dispatcher.job AS j USING old AS o WHERE j.id = o.id RETURNING 1
)
SELECT count(*) FROM gone
