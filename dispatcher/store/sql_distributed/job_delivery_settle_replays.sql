-- A delivery that is neither open nor ended has just ended: its row is visible once the workers have committed.
-- Takes the replayed deliveries that have ended out of their job, and counts them by what became of them.
--
-- Parameters, one element each: $1 delivery ids, $2 days, a few, $3 event ids, $4 numbers of the endpoints, $5 attempts
--   that they had when the job started them (not used: a replay ends when the delivery does).
-- Returns also how many wait for their first attempt at an endpoint that could be sent to now: the job waits for these.
-- Index: delivery_open_pkey, delivery_done_pkey, endpoint_number_key, endpoint_breaker_pkey, job_delivery_pkey. Locks: the
-- rows deleted.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::date[], $3::text[], $4::integer[], $5::integer[])
        AS g (id, day, event_id, endpoint_no, attempt_count)
), seen AS MATERIALIZED (
    SELECT g.id, (o.id IS NOT NULL OR d.state IS NULL AND v.id IS NOT NULL) AS is_open, d.state,
           o.schedule_position = 0 AND p.state = 'active' AND p.deleted_at IS NULL AND b.endpoint_id IS NULL AS is_due
    FROM given AS g
    JOIN dispatcher.endpoint AS p ON p.number = g.endpoint_no
    LEFT JOIN dispatcher.endpoint_breaker AS b ON b.endpoint_id = p.id
    LEFT JOIN dispatcher.delivery_open AS o ON o.id = g.id
    LEFT JOIN dispatcher.delivery_done AS d
        ON d.day = ANY ($2::date[]) AND d.day = g.day AND d.event_id = g.event_id AND d.endpoint_no = g.endpoint_no
    LEFT JOIN dispatcher.event AS v ON v.day = g.day AND v.id = g.event_id
), gone AS (
    DELETE FROM dispatcher.job_delivery AS j USING seen AS s WHERE j.delivery_id = s.id AND NOT s.is_open
    RETURNING s.state
)
SELECT (SELECT count(*) FROM gone WHERE state = 3) AS succeeded_count,
       (SELECT count(*) FROM gone WHERE state = 4) AS failed_count,
       (SELECT count(*) FROM gone WHERE state IS NULL OR state NOT IN (3, 4)) AS cancelled_count,
       (SELECT count(*) FROM seen WHERE is_due) AS due_count
