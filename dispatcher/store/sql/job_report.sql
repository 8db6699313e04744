-- Raises the event that a job has ended, in the transaction that ends it.
--
-- Parameters: $1 id. Index: job_pkey. Locks: none but the new row.
INSERT INTO dispatcher.outbox (operational, type, tenant, data)
SELECT true, 'dispatcher.job.finished', coalesce(j.tenant, 'default'), (
    SELECT row_to_json(r) FROM (
        SELECT j.id AS job_id, j.kind, j.state, j.reason, j.requested_by,
               coalesce(j.target_id, j.criteria->>'endpoint_id') AS endpoint_id,
               to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
               j.started_count, j.succeeded_count, j.failed_count, j.cancelled_count) AS r)
FROM dispatcher.job AS j
WHERE j.id = $1
