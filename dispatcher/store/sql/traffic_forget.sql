-- Forgets a slice of the traffic that is older than it is kept; returns how many rows.
--
-- Parameters: $1 days, $2 rows at most. Index: traffic_pkey. Locks: the rows deleted; those that others hold are skipped.
WITH old AS MATERIALIZED (
    SELECT hour, subject FROM dispatcher.traffic
    WHERE hour < now() - make_interval(days => $1::integer)
    ORDER BY hour LIMIT $2 FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM dispatcher.traffic AS t USING old WHERE t.hour = old.hour AND t.subject = old.subject RETURNING 1
)
SELECT count(*) FROM forgotten
