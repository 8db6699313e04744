-- Takes the resent deliveries whose attempt was made out of their job, and counts them by its outcome.
--
-- Parameters, one element each: $1 delivery ids, $2 days, $3 event ids, $4 numbers of the endpoints, $5 attempts
--   that they had when the job requested one more; $6 the days, each once.
-- A request that was dropped without an attempt counts as cancelled. Returns also how many requests wait.
-- Index: delivery_request_pkey, attempt_pkey, delivery_done_pkey, job_delivery_pkey. Locks: the rows deleted.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::integer[], $5::integer[])
        AS g (id, day, event_id, endpoint_no, attempt_count)
), seen AS MATERIALIZED (
    SELECT g.id, r.delivery_id IS NOT NULL AS is_waiting,
           (SELECT min(a.outcome) FROM dispatcher.attempt_row AS a
            WHERE a.day = ANY ($6::date[]) AND a.day = g.day AND a.event_id = g.event_id
              AND a.endpoint_no = g.endpoint_no AND a.attempt_number > g.attempt_count) AS outcome
    FROM given AS g
    LEFT JOIN dispatcher.delivery_request AS r ON r.delivery_id = g.id AND r.kind = 'resend'
), gone AS (
    DELETE FROM dispatcher.job_delivery AS j USING seen AS s WHERE j.delivery_id = s.id AND NOT s.is_waiting
    RETURNING s.outcome
)
SELECT (SELECT count(*) FROM gone WHERE outcome = 1) AS succeeded_count,
       (SELECT count(*) FROM gone WHERE outcome > 1) AS failed_count,
       (SELECT count(*) FROM gone WHERE outcome IS NULL) AS cancelled_count,
       (SELECT count(*) FROM seen WHERE is_waiting) AS due_count
