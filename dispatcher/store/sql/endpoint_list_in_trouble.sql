-- Endpoints that need attention: disabled, failing, or deferred by an open breaker; the worst first.
--
-- Parameters: $1 tenant (NULL: all), $2 rows at most. Index: endpoint_health_pkey, endpoint_breaker_pkey; endpoints
-- are thousands at most. Locks: none.
SELECT e.id, e.name, e.tenant, e.url, e.state, e.reason, h.first_failure_at, h.failed_attempts,
       b.state AS breaker_state, b.probe_at
FROM dispatcher.endpoint AS e
LEFT JOIN dispatcher.endpoint_health AS h ON h.endpoint_id = e.id
LEFT JOIN (dispatcher.endpoint_breaker AS b
           JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp())
       ON b.endpoint_id = e.id
WHERE e.deleted_at IS NULL AND ($1::text IS NULL OR e.tenant = $1)
  AND (e.state = 'disabled' OR h.endpoint_id IS NOT NULL OR b.endpoint_id IS NOT NULL)
ORDER BY e.state = 'disabled' DESC, b.endpoint_id IS NULL, h.failed_attempts DESC NULLS LAST, e.id
LIMIT $2
