-- Counts failed attempts of endpoints since their last success.
--
-- Parameters: $1 endpoint ids, $2 when the first of these failures was, $3 how many, $4 whether one of them
--   was of a producer's event rather than of the dispatcher's own.
-- Returns per endpoint the seconds since its first failure, the count, and the last threshold that raised an event.
-- Index: endpoint_health_pkey. Locks: the rows.
INSERT INTO dispatcher.endpoint_health AS h (endpoint_id, first_failure_at, failed_attempts, by_producers)
SELECT f.endpoint_id, f.first_failure_at, f.failed_attempts, f.by_producers
FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::boolean[])
    AS f (endpoint_id, first_failure_at, failed_attempts, by_producers)
JOIN dispatcher.endpoint AS p ON p.id = f.endpoint_id
ON CONFLICT (endpoint_id) DO UPDATE
SET failed_attempts = h.failed_attempts + excluded.failed_attempts,
    by_producers = h.by_producers OR excluded.by_producers
RETURNING h.endpoint_id, extract(epoch FROM clock_timestamp() - h.first_failure_at)::float8 AS failing_seconds,
          h.failed_attempts, h.warned_percent
