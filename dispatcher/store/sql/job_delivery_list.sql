-- The next deliveries that a job has started and that had not ended when it last looked.
-- Parameters: $1 id of the job, $2 the delivery id that all are above, $3 rows at most. Index: job_delivery_of. Locks: none.
SELECT delivery_id, day, event_id, endpoint_no, attempt_count
FROM dispatcher.job_delivery
WHERE job_id = $1 AND delivery_id > $2::uuid
ORDER BY delivery_id
LIMIT $3
