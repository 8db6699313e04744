-- Inserts a job. Parameters: $1 id, $2 kind, $3 tenant, $4 filter and $5 criteria (JSON text), $6 the endpoint to send to,
--   $7 deliveries per second, $8 who requested it.
-- Index: job_pkey. Locks: the new row.
INSERT INTO dispatcher.job (id, kind, tenant, filter, criteria, target_id, rate_per_second, requested_by)
VALUES ($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6, $7, $8)
