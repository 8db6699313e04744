-- Returns the endpoints of one replica's published breakers for which a test event has succeeded, once each.
--
-- Parameters: $1 incarnation. Index: none, the table holds open breakers alone. Locks: the rows.
UPDATE dispatcher.endpoint_breaker AS b SET tested_at = NULL
WHERE b.incarnation = $1 AND b.tested_at IS NOT NULL
RETURNING b.endpoint_id
