-- Forgets a slice of the audit log that is older than it is kept; returns how many lines.
--
-- Parameters: $1 days, $2 rows at most. Index: audit_newest. Locks: the rows deleted.
WITH old AS (
    SELECT id FROM dispatcher.audit
    WHERE at < statement_timestamp() - make_interval(days => $1::integer) ORDER BY at LIMIT $2
), forgotten AS (
    DELETE FROM dispatcher.audit WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING 1
)
SELECT count(*) FROM forgotten
