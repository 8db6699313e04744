-- Forgets a slice of the minutes that are older than two hours, which no page shows; returns how many rows.
--
-- Parameters: $1 rows at most. Index: traffic_minute_pkey; a tenant has at most 120 rows that are kept.
-- Locks: the rows deleted; those that others hold are skipped.
WITH old AS MATERIALIZED (
    SELECT subject, minute FROM dispatcher.traffic_minute
    WHERE minute < now() - interval '2 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM dispatcher.traffic_minute AS t USING old
    WHERE t.subject = old.subject AND t.minute = old.minute RETURNING 1
)
SELECT count(*) FROM forgotten
