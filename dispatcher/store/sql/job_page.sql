-- A page of jobs, newest first; or the one of an id.
--
-- Parameters (NULL: any): $1 tenant, $2 state, $3 kind, $4 and $5 time and id of the last one of the page before,
--   $6 rows at most, $7 id.
-- Index: job_pkey where an id is given, else job_newest, read backwards. Locks: none.
SELECT j.id, j.kind, j.tenant, j.filter::text AS filter, j.criteria::text AS criteria, j.target_id, j.rate_per_second,
       j.requested_by, j.state, j.reason, j.created_at, j.updated_at, j.finished_at, j.cursor, j.is_walked, j.total_count,
       j.started_count, j.skipped::text AS skipped, j.succeeded_count, j.failed_count, j.cancelled_count
FROM dispatcher.job AS j
WHERE ($1::text IS NULL OR j.tenant = $1)
  AND ($2::text IS NULL OR j.state = $2)
  AND ($3::text IS NULL OR j.kind = $3)
  AND ($4::timestamptz IS NULL OR (j.created_at, j.id) < ($4, $5::text))
  AND ($7::text IS NULL OR j.id = $7)
ORDER BY j.created_at DESC, j.id DESC
LIMIT $6
