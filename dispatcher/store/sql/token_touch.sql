-- Writes down when tokens were used, to the minute: a busy token is one write a minute, whatever its requests.
--
-- Parameters: $1 SHA-256s, $2 times. Index: token_hash. Locks: those rows.
UPDATE dispatcher.token AS t
SET last_used_at = used.at
FROM unnest($1::bytea[], $2::timestamptz[]) AS used (hash, at)
WHERE t.hash = used.hash AND (t.last_used_at IS NULL OR t.last_used_at <= used.at - interval '1 minute')
