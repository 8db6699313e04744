-- Pauses, resumes or cancels a job at a person's request. Returns no row if it is in none of the expected states.
--
-- Parameters: $1 id, $2 tenant (NULL: any), $3 the new state, $4 the states that it may be in.
-- A job that is resumed before it was counted is pending again. Index: job_pkey. Locks: the row.
UPDATE dispatcher.job
SET state = CASE WHEN $3::text = 'running' AND total_count IS NULL THEN 'pending' ELSE $3::text END,
    reason = NULL, updated_at = clock_timestamp(),
    finished_at = CASE WHEN $3::text = 'cancelled' THEN clock_timestamp() END
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND state = ANY ($4::text[])
RETURNING id
