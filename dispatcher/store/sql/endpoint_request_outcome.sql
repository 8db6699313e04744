-- The outcome so far of the attempt that a retry of an endpoint began with: the latest attempt that ended since the
-- request (NULL: none), whether one of these succeeded, whether the resend or the request still waits, and the dispatchers.
--
-- Parameters: $1 day, a constant in the plan, so that only its partitions are locked; $2 event id, $3 number of the
--   endpoint, $4 delivery id, $5 when the retry was requested. An attempt that was in flight then, or whose result was not
--   yet committed, counts too.
-- Index: attempt_pkey, delivery_done_pkey, delivery_request_pkey, endpoint_request_pkey. Locks: none.
WITH since AS MATERIALIZED (
    SELECT a.attempt_number, a.outcome
    FROM dispatcher.attempt_row AS a
    WHERE a.day = $1::date AND a.event_id = $2 AND a.endpoint_no = $3::integer
      AND a.attempted_at + make_interval(secs => least(a.latency_seconds, 86400) + 2) >= $5::timestamptz
)
SELECT (SELECT max(attempt_number) FROM since) AS attempt_number,
       EXISTS (SELECT FROM since WHERE outcome = 1) AS succeeded,
       EXISTS (SELECT FROM dispatcher.delivery_request AS q
               WHERE q.delivery_id = $4::uuid AND q.kind = 'resend') AS is_resend_waiting,
       EXISTS (SELECT FROM dispatcher.endpoint_request AS r
               WHERE r.endpoint_no = $3 AND r.kind = 'retry' AND r.requested_at = $5) AS is_retry_waiting,
       (SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()) AS dispatchers_alive
