-- Counts the deliveries of one endpoint that have failed, and those that wait for a retry, by the response to their last
-- attempt; the most frequent response first. NULL as the outcome: no attempt was made. Every row also has how many waiting
-- and failed deliveries were read; where no response is counted, the only row has nothing else.
--
-- Parameters: $1 endpoint id, $2 tenant (NULL: any), $3 deliveries of either kind of which one more is read at most,
--   $4 responses at most, $5 the day from which failed deliveries are counted.
-- Index: delivery_done_failed and attempt_pkey of the days, delivery_open_due. Locks: none.
-- The waiting ones are the first by due time, also where most of them have not been attempted yet: a bound on those with
-- an attempt would read all others.
WITH one AS MATERIALIZED (
    SELECT number FROM dispatcher.endpoint WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)
), failed AS MATERIALIZED (
    SELECT d.day, d.event_id, d.endpoint_no, d.outcome, d.response_code
    FROM dispatcher.delivery_done AS d
    WHERE d.endpoint_no = (SELECT number FROM one) AND d.state = 4 /* failed */ AND NOT d.test AND d.day >= $5::date
    LIMIT $3 + 1
), waiting AS MATERIALIZED (
    SELECT o.day, o.event_id, o.endpoint_no, o.schedule_position
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = (SELECT number FROM one)
    ORDER BY o.next_attempt_at
    LIMIT $3 + 1
), counted AS (
    SELECT f.day, f.event_id, f.endpoint_no, f.outcome, f.response_code, true AS is_failed FROM failed AS f
    UNION ALL
    SELECT w.day, w.event_id, w.endpoint_no, NULL, NULL, false FROM waiting AS w WHERE w.schedule_position > 0
), by_response AS (
    SELECT coalesce(a.outcome, c.outcome) AS outcome, coalesce(a.response_code, c.response_code) AS response_code,
           count(*) FILTER (WHERE c.is_failed) AS failed_count, count(*) FILTER (WHERE NOT c.is_failed) AS retrying_count
    FROM counted AS c
    LEFT JOIN LATERAL (
        SELECT v.outcome, v.response_code FROM dispatcher.attempt AS v
        WHERE v.day >= $5 AND v.day = c.day AND v.event_id = c.event_id AND v.endpoint_no = c.endpoint_no
        ORDER BY v.attempt_number DESC
        LIMIT 1
    ) AS a ON true
    GROUP BY 1, 2
    ORDER BY count(*) DESC, 1, 2
    LIMIT $4
)
SELECT (SELECT count(*) FROM waiting) AS waiting_read, (SELECT count(*) FROM failed) AS failed_read, r.*
FROM (SELECT) AS always
LEFT JOIN by_response AS r ON true
ORDER BY r.failed_count + r.retrying_count DESC, r.outcome, r.response_code
