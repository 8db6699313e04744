-- Other incarnations under this name whose lease still runs: either a crash's leftover or a second process.
--
-- Parameters: $1 name, $2 own incarnation. Locks: none.
SELECT incarnation, renewed_at FROM dispatcher.replica
WHERE name = $1 AND incarnation <> $2 AND expires_at > clock_timestamp()
