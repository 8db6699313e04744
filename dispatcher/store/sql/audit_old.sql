-- How many lines of the audit log are older than they are kept; counted up to a million.
--
-- Parameters: $1 days. Index: audit_newest. Locks: none.
SELECT count(*) FROM (
    SELECT FROM dispatcher.audit
    WHERE at < statement_timestamp() - make_interval(days => $1::integer) LIMIT 1000000
) AS old
