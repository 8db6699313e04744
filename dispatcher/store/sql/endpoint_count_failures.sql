-- Counts the deliveries of one endpoint that have failed, and those that wait for a retry, by the response to their last
-- attempt; the most frequent response first. NULL as the outcome: no attempt was made. Every row also has how many waiting
-- and failed deliveries there are; where no response is counted, the only row has nothing else.
--
-- Parameters: $1 endpoint id, $2 tenant (NULL: any), $3 count at most (a larger count is returned as this plus one),
--   $4 deliveries of either kind whose response is read, at most, $5 responses at most, $6 the day from which failed
--   deliveries are counted.
-- Index: delivery_done_failed, from the newest day on, and attempt_pkey of the days, delivery_open_due. Locks: none.
-- The waiting ones are the first by due time, also where most of them have not been attempted yet: a bound on those with
-- an attempt would read all others.
WITH one AS MATERIALIZED (
    SELECT number FROM dispatcher.endpoint WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)
), failed AS MATERIALIZED (
    SELECT f.*
    FROM generate_series((now() AT TIME ZONE 'UTC')::date + 1, $6::timestamp, interval '-1 day') WITH ORDINALITY AS g (midnight, place)
    CROSS JOIN LATERAL (
        SELECT d.day, d.event_id, d.endpoint_no, d.outcome, d.response_code
        FROM dispatcher.delivery_done AS d
        WHERE d.endpoint_no = (SELECT number FROM one) AND d.state = 4 /* failed */ AND NOT d.test
          AND d.day >= $6::date AND d.day = g.midnight::date
        LIMIT $4) AS f
    ORDER BY g.place
    LIMIT $4
), waiting AS MATERIALIZED (
    SELECT o.day, o.event_id, o.endpoint_no, o.schedule_position
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = (SELECT number FROM one)
    ORDER BY o.next_attempt_at
    LIMIT $4
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
        WHERE v.day >= $6 AND v.day = c.day AND v.event_id = c.event_id AND v.endpoint_no = c.endpoint_no
        ORDER BY v.attempt_number DESC
        LIMIT 1
    ) AS a ON true
    GROUP BY 1, 2
    ORDER BY count(*) DESC, 1, 2
    LIMIT $5
)
SELECT (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open AS o
                              WHERE o.endpoint_no = (SELECT number FROM one) LIMIT $3 + 1) AS w) AS waiting_total,
       (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_done AS d
                              WHERE d.endpoint_no = (SELECT number FROM one) AND d.state = 4 AND NOT d.test
                                AND d.day >= $6 LIMIT $3 + 1) AS f) AS failed_total,
       r.*
FROM (SELECT) AS always
LEFT JOIN by_response AS r ON true
ORDER BY r.failed_count + r.retrying_count DESC, r.outcome, r.response_code
