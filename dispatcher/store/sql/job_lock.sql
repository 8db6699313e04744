-- Locks a job for one step. Returns no row if another replica runs it now.
--
-- Parameters: $1 id, $2 our incarnation. Returns also the state of the one endpoint that the job is about, `deleted` where
-- it is, NULL if it is about several. Index: job_pkey, endpoint_pkey. Locks: the row.
SELECT j.id, j.kind, j.tenant, j.filter::text AS filter, j.criteria::text AS criteria, j.target_id, j.rate_per_second,
       j.requested_by, j.state, j.reason, j.created_at, j.updated_at, j.finished_at, j.cursor, j.is_walked, j.total_count,
       j.started_count, j.skipped::text AS skipped, j.succeeded_count, j.failed_count, j.cancelled_count,
       (SELECT CASE WHEN p.deleted_at IS NOT NULL THEN 'deleted' ELSE p.state END FROM dispatcher.endpoint AS p
        WHERE p.id = coalesce(j.target_id, j.criteria->>'endpoint_id')) AS endpoint_state
FROM dispatcher.job AS j
WHERE j.id = $1 AND j.owner = $2
FOR UPDATE OF j
