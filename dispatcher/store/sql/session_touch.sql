-- Writes down when sessions were used, to five minutes.
--
-- Parameters: $1 SHA-256s, $2 times. Index: session_pkey. Locks: those rows.
UPDATE dispatcher.session AS s
SET used_at = used.at
FROM unnest($1::bytea[], $2::timestamptz[]) AS used (hash, at)
WHERE s.hash = used.hash AND s.used_at <= used.at - interval '5 minutes'
