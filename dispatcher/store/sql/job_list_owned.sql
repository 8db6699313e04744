-- The jobs that a replica runs.
-- Parameters: $1 our incarnation. Index: job_unsettled. Locks: none.
SELECT j.id, j.kind, j.tenant, j.filter::text AS filter, j.criteria::text AS criteria, j.target_id, j.rate_per_second,
       j.requested_by, j.state, j.reason, j.created_at, j.updated_at, j.finished_at, j.cursor, j.is_walked, j.total_count,
       j.started_count, j.skipped::text AS skipped, j.succeeded_count, j.failed_count, j.cancelled_count
FROM dispatcher.job AS j
WHERE NOT j.is_settled AND j.owner = $1
ORDER BY j.created_at
