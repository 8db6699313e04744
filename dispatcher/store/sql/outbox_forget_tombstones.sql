-- Forgets producers' ids after the days that they are promised to be remembered; a slice at a time.
--
-- Quarantined events keep their data and stay.
-- Parameters: $1 days, $2 rows at most. Returns how many. Index: outbox_tombstones. Locks: the rows deleted.
WITH old AS (
    SELECT ctid AS row_id FROM dispatcher.outbox
    WHERE consumed_at < statement_timestamp() - make_interval(days => $1) AND data IS NULL LIMIT $2
), forgotten AS (
    DELETE FROM dispatcher.outbox WHERE ctid = ANY (ARRAY(SELECT row_id FROM old)) RETURNING 1
)
SELECT count(*) FROM forgotten
