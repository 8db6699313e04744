-- Opens a session, and ends the least recently used ones of the same token or person beyond the maximum.
--
-- Parameters: $1 SHA-256 of its cookie, $2 id, $3 source, $4 SHA-256 of the token or the person, $5 SHA-256 of the
--   rules that granted it (NULL: not by single sign-on), $6 actor, $7 the person's name (NULL: no person), $8 role,
--   $9 tenant (NULL: all), $10 address, $11 seconds until it ends, $12 sessions of one authority at most.
-- Index: session_pkey; by authority none, they are few. Locks: the rows that end.
WITH surplus AS (
    SELECT hash FROM dispatcher.session WHERE authority = $4 ORDER BY used_at DESC OFFSET $12 - 1
), ended AS (
    DELETE FROM dispatcher.session WHERE hash IN (SELECT hash FROM surplus)
)
INSERT INTO dispatcher.session (hash, id, source, authority, rules, actor, label, role, tenant, address, ends_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() + make_interval(secs => $11))
