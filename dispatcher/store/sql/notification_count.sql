-- Counts notification rules, up to a number. Parameters: $1 the number. Index: none, they are few. Locks: none.
SELECT count(*)::integer FROM (SELECT FROM dispatcher.notification LIMIT $1) AS n
