-- Adds counts to this hour's rows of their subjects, and to this minute's of all endpoints and of each tenant, by the
-- database's clock.
--
-- Parameters, one element a subject, sorted by it so that two replicas do not deadlock: $1 subject, attempts $2 ok,
--   $3 refused, $4 timed out, $5 unreachable, deliveries $6 succeeded, $7 failed, $8 latency counts (array texts),
--   the last attempt's $9 time, $10 outcome, $11 response code, $12 error.
-- Index: traffic_pkey, traffic_minute_pkey. Locks: the rows, until its transaction commits.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                         $8::text[], $9::timestamptz[], $10::text[], $11::smallint[], $12::text[])
        AS g (subject, ok, refused, timed_out, unreachable, succeeded, failed, latency_counts, last_at, last_outcome,
              last_code, last_error)
), minutes AS (
    INSERT INTO dispatcher.traffic_minute AS m
    SELECT g.subject, date_trunc('minute', now(), 'UTC'), g.ok, g.refused, g.timed_out, g.unreachable, g.succeeded,
           g.failed, g.latency_counts::integer[]
    FROM given AS g WHERE g.subject = 'all' OR starts_with(g.subject, 'tenant/')
    ON CONFLICT (subject, minute) DO UPDATE
    SET ok_count = m.ok_count + excluded.ok_count,
        refused_count = m.refused_count + excluded.refused_count,
        timeout_count = m.timeout_count + excluded.timeout_count,
        unreachable_count = m.unreachable_count + excluded.unreachable_count,
        succeeded_count = m.succeeded_count + excluded.succeeded_count,
        failed_count = m.failed_count + excluded.failed_count,
        latency_counts = ARRAY(SELECT p.had + p.more
                               FROM unnest(m.latency_counts, excluded.latency_counts)
                                   WITH ORDINALITY AS p (had, more, n)
                               ORDER BY p.n)
)
INSERT INTO dispatcher.traffic AS t
SELECT date_trunc('hour', now(), 'UTC'), g.subject, g.ok, g.refused, g.timed_out, g.unreachable, g.succeeded, g.failed,
       g.latency_counts::integer[], g.last_at, g.last_outcome, g.last_code, g.last_error
FROM given AS g
ON CONFLICT (hour, subject) DO UPDATE
SET ok_count = t.ok_count + excluded.ok_count,
    refused_count = t.refused_count + excluded.refused_count,
    timeout_count = t.timeout_count + excluded.timeout_count,
    unreachable_count = t.unreachable_count + excluded.unreachable_count,
    succeeded_count = t.succeeded_count + excluded.succeeded_count,
    failed_count = t.failed_count + excluded.failed_count,
    latency_counts = ARRAY(SELECT p.had + p.more
                           FROM unnest(t.latency_counts, excluded.latency_counts) WITH ORDINALITY AS p (had, more, n)
                           ORDER BY p.n),
    last_attempt_at = excluded.last_attempt_at,
    last_outcome = excluded.last_outcome,
    last_response_code = excluded.last_response_code,
    last_error = excluded.last_error
