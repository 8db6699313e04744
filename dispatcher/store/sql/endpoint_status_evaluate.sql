-- Evaluates the health of active endpoints, and records what has changed. This is the definition of health:
--
--   down        at least $2 attempts failed since the last success, and the breaker is open, or nothing has succeeded
--               for $1 seconds. Once down, only a success ends it, whatever becomes of the breaker or of the replica.
--   recovering  an attempt has succeeded after that; until $5 seconds have passed, the breaker is closed, the latest
--               attempt succeeded, and no delivery is overdue by more than $5 seconds. Those behind an earlier one of
--               their line wait for it, and are not overdue; the 1,000 that are due first are looked at.
--   degraded    the breaker defers some event types, or at least $2 attempts and a share of $4 failed in the last $3
--               seconds.
--   healthy     otherwise. There is no row.
--
-- Parameters: $1 seconds without a success, $2 failed attempts at least, $3 seconds of the share, $4 share of failures,
--   $5 seconds of recovering at least. Returns the endpoints whose health changed, and what it was (NULL: healthy).
-- A paused or disabled endpoint keeps its health: nothing is sent to it. Failures before a recovery do not count
-- afterwards. Any replica may run this at any time: a row that another has changed meanwhile is left alone.
-- Index: endpoint_pkey, delivery_open_due, delivery_open_line; the other tables have rows of endpoints that fail only. Locks: the rows.
WITH breaker AS (
    SELECT b.endpoint_id, b.state
    FROM dispatcher.endpoint_breaker AS b
    JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp()
), recent AS (
    SELECT endpoint_id, sum(ok_count) AS ok, sum(failed_count) AS failed,
           (array_agg(outcome ORDER BY minute DESC) FILTER (WHERE outcome IS NOT NULL))[1] AS outcome,
           (array_agg(response_code ORDER BY minute DESC) FILTER (WHERE outcome IS NOT NULL))[1] AS response_code
    FROM dispatcher.endpoint_recent
    WHERE minute > clock_timestamp() - make_interval(secs => $3)
    GROUP BY endpoint_id
), evaluated AS MATERIALIZED (
    SELECT e.id, s.health AS was, s.since AS was_since, h.first_failure_at, r.outcome, r.response_code,
           CASE
               WHEN h.failed_attempts >= $2::bigint
                    AND (s.health = 'down' OR b.state = 'open'
                         OR h.first_failure_at <= clock_timestamp() - make_interval(secs => $1)) THEN 'down'
               WHEN s.health = 'down'
                    OR s.health = 'recovering'
                       AND (s.since > clock_timestamp() - make_interval(secs => $5) OR b.endpoint_id IS NOT NULL
                            OR h.endpoint_id IS NOT NULL
                            OR EXISTS (
                                SELECT
                                FROM (SELECT next_attempt_at, order_key, position FROM dispatcher.delivery_open
                                      WHERE endpoint_no = e.number ORDER BY next_attempt_at LIMIT 1000) AS o
                                WHERE o.next_attempt_at < clock_timestamp() - make_interval(secs => $5)
                                  AND (e.ordering = 'none' OR o.order_key IS NULL
                                       OR o.position = (SELECT f.position FROM dispatcher.delivery_open AS f
                                                        WHERE f.endpoint_no = e.number AND f.order_key = o.order_key
                                                        ORDER BY f.position LIMIT 1))))
                    THEN 'recovering'
               WHEN b.endpoint_id IS NOT NULL
                    OR r.failed >= $2::bigint AND r.failed >= $4::float8 * (r.ok + r.failed) THEN 'degraded'
               ELSE 'healthy'
           END AS health
    FROM (SELECT endpoint_id FROM dispatcher.endpoint_health
          UNION SELECT endpoint_id FROM recent
          UNION SELECT endpoint_id FROM breaker
          UNION SELECT endpoint_id FROM dispatcher.endpoint_status) AS c
    JOIN dispatcher.endpoint AS e ON e.id = c.endpoint_id AND e.state = 'active' AND e.deleted_at IS NULL
    LEFT JOIN dispatcher.endpoint_health AS h ON h.endpoint_id = e.id
    LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = e.id
    LEFT JOIN breaker AS b ON b.endpoint_id = e.id
    LEFT JOIN recent AS r ON r.endpoint_id = e.id
), began AS (
    INSERT INTO dispatcher.endpoint_status AS s (endpoint_id, health, since, cause, response_code)
    SELECT v.id, v.health, CASE v.health WHEN 'down' THEN v.first_failure_at ELSE clock_timestamp() END, v.outcome,
           v.response_code
    FROM evaluated AS v
    WHERE v.was IS NULL AND v.health <> 'healthy'
    ORDER BY v.id
    ON CONFLICT DO NOTHING
    RETURNING s.endpoint_id, s.health, s.since, s.cause, s.response_code
), went_on AS (
    UPDATE dispatcher.endpoint_status AS s
    SET health = v.health,
        since = CASE WHEN v.health = v.was THEN s.since WHEN v.health = 'down' THEN v.first_failure_at
                     ELSE clock_timestamp() END,
        cause = coalesce(v.outcome, s.cause),
        response_code = CASE WHEN v.outcome IS NULL THEN s.response_code ELSE v.response_code END
    FROM evaluated AS v
    WHERE s.endpoint_id = v.id AND s.health = v.was AND s.since = v.was_since AND v.health <> 'healthy'
      AND (v.health <> v.was
           OR v.outcome IS NOT NULL
              AND (v.outcome, v.response_code) IS DISTINCT FROM (s.cause, s.response_code))
    RETURNING s.endpoint_id, s.health, s.since, s.cause, s.response_code, v.was
), ended AS (
    DELETE FROM dispatcher.endpoint_status AS s
    USING evaluated AS v
    WHERE s.endpoint_id = v.id AND s.health = v.was AND s.since = v.was_since AND v.health = 'healthy'
    RETURNING s.endpoint_id, s.cause, s.response_code, v.was
), forgotten AS (
    DELETE FROM dispatcher.endpoint_recent
    WHERE minute <= clock_timestamp() - make_interval(secs => $3)
       OR endpoint_id IN (SELECT endpoint_id FROM went_on WHERE health = 'recovering' AND was = 'down')
)
SELECT endpoint_id, NULL AS was, health, since, cause, response_code FROM began
UNION ALL
SELECT endpoint_id, was, health, since, cause, response_code FROM went_on WHERE health <> was
UNION ALL
SELECT endpoint_id, was, 'healthy', clock_timestamp(), cause, response_code FROM ended
