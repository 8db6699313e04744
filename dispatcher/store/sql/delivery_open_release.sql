-- Makes the next scheduled deliveries of an endpoint due now, in the order of their due times; a slice at a time.
--
-- Parameters: $1 number of the endpoint, $2 rows at most. Returns how many; fewer than $2: no more are scheduled.
-- Index: delivery_open_due. Locks: the rows; one that a recorder holds is skipped, because its attempt was just made.
WITH picked AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.delivery_open AS o
    WHERE o.endpoint_no = $1 AND o.next_attempt_at > clock_timestamp()
      AND o.next_attempt_at < '9999-01-01 00:00:00+00' -- not those that stand behind another one
    ORDER BY o.next_attempt_at, o.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), released AS (
    UPDATE dispatcher.delivery_open AS o SET next_attempt_at = statement_timestamp()
    FROM picked AS p WHERE o.id = p.id
    RETURNING 1
)
SELECT count(*) FROM released
