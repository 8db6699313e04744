-- Moves a job on, in the transaction of the deliveries that the step started or that ended.
--
-- Parameters: $1 id, $2 cursor, $3 whether the filter finds nothing behind it, $4 deliveries started in this step,
--   $5 deliveries skipped so far, by reason (JSON text), $6 total (NULL: as it is), $7 state, $8 reason,
--   $9 to $11 deliveries that succeeded, failed and were cancelled since the last step, $12 whether all is settled.
-- Index: job_pkey. Locks: the row, which the caller has locked already.
UPDATE dispatcher.job
SET cursor = $2, is_walked = $3, started_count = started_count + $4, skipped = $5::text::jsonb,
    total_count = coalesce($6, total_count), state = $7, reason = $8,
    succeeded_count = succeeded_count + $9, failed_count = failed_count + $10, cancelled_count = cancelled_count + $11,
    is_settled = $12, updated_at = clock_timestamp(),
    finished_at = CASE WHEN $7 IN ('completed', 'cancelled', 'failed') THEN coalesce(finished_at, clock_timestamp()) END
WHERE id = $1
