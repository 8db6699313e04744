-- Makes waiting deliveries of an endpoint due now, in the order of their due times; a slice at a time: those that are
-- scheduled, or those that were shelved while the endpoint had an order, if it has none now.
--
-- Parameters: $1 number of the endpoint, $2 rows at most, $3 whether the shelved ones are meant. Returns how many; fewer than
--   $2: there are no more.
-- Index: delivery_open_due, endpoint_number_key. Locks: the rows; one that a recorder holds is skipped, because its attempt
-- was just made.
WITH picked AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = $1
      AND o.next_attempt_at > CASE WHEN $3 THEN '9998-12-31 00:00:00+00' ELSE statement_timestamp() END
      AND o.next_attempt_at < CASE WHEN $3 THEN 'infinity' ELSE '9999-01-01 00:00:00+00'::timestamptz END
      AND (NOT $3 OR EXISTS (SELECT FROM dispatcher.endpoint AS p WHERE p.number = $1 AND p.ordering = 'none'))
    ORDER BY o.next_attempt_at, o.id
    LIMIT $2
    FOR UPDATE OF o SKIP LOCKED
), released AS (
    UPDATE dispatcher.delivery_open AS o SET next_attempt_at = statement_timestamp()
    FROM picked AS p WHERE o.id = p.id
    RETURNING 1
)
SELECT count(*) FROM released
