-- What keeps some deliveries from being started by a job: another job works on them, or a resend waits; and their states,
-- NULL where there is no such delivery.
--
-- Parameters, one element each: $1 delivery ids, $2 days; $3 id of the job (NULL: it does not exist yet); $4 the days,
--   each once: 500 times the same day in a condition cost 0.1 ms for each row.
-- Index: job_delivery_pkey, delivery_request_pkey, delivery_open_pkey, delivery_done_id of the days. Locks: none.
SELECT g.id,
       EXISTS (SELECT FROM dispatcher.job_delivery AS j
               WHERE j.delivery_id = g.id AND j.job_id IS DISTINCT FROM $3::text) AS in_another_job,
       EXISTS (SELECT FROM dispatcher.delivery_request AS r
               WHERE r.delivery_id = g.id AND r.kind = 'resend') AS resend_waits,
       (SELECT v.state FROM dispatcher.delivery_row AS v
        WHERE v.day = ANY ($4::date[]) AND v.id = g.id AND v.day = g.day LIMIT 1) AS state
FROM unnest($1::uuid[], $2::date[]) AS g (id, day)
