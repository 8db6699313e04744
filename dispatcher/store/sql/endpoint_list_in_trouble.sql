-- Endpoints that need attention: disabled, or not healthy; the worst first.
--
-- Parameters: $1 tenant (NULL: all), $2 rows at most. Index: endpoint_health_pkey, endpoint_breaker_pkey,
-- endpoint_status_pkey; endpoints are thousands at most. Locks: none.
SELECT e.id, e.name, e.tenant, e.url, e.state, e.reason, coalesce(s.health, 'healthy') AS health, s.since, s.cause,
       s.response_code, coalesce(h.failed_attempts, 0) AS failed_attempts, b.state AS breaker_state, b.probe_at
FROM dispatcher.endpoint AS e
LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = e.id
LEFT JOIN dispatcher.endpoint_health AS h ON h.endpoint_id = e.id
LEFT JOIN (dispatcher.endpoint_breaker AS b
           JOIN dispatcher.replica AS r ON r.incarnation = b.incarnation AND r.expires_at > clock_timestamp())
       ON b.endpoint_id = e.id
WHERE e.deleted_at IS NULL AND ($1::text IS NULL OR e.tenant = $1)
  AND (e.state = 'disabled' OR s.endpoint_id IS NOT NULL)
ORDER BY e.state = 'disabled' DESC, array_position(ARRAY['down', 'degraded', 'recovering'], s.health), s.since, e.id
LIMIT $2
