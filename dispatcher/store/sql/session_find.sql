-- A session that has not ended, and its token if that may still be used (NULLs: it is none of the table's).
--
-- Parameters: $1 SHA-256 of its cookie, $2 seconds without use after which it ends.
-- Index: session_pkey, token_hash. Locks: none.
SELECT s.source, s.authority, s.rules, s.actor, s.label, s.role, s.tenant, t.id, t.name, t.role, t.tenant, t.endpoint_id
FROM dispatcher.session AS s
LEFT JOIN dispatcher.token AS t
       ON s.source = 'token' AND t.hash = s.authority AND t.revoked_at IS NULL
      AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
WHERE s.hash = $1 AND s.ends_at > clock_timestamp()
  AND s.used_at > clock_timestamp() - make_interval(secs => $2)
