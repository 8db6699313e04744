-- How many jobs have not ended, or wait for their deliveries, up to a limit.
-- Parameters: $1 rows at most. Index: job_unsettled. Locks: none.
SELECT count(*) FROM (SELECT FROM dispatcher.job WHERE NOT is_settled LIMIT $1) AS j
