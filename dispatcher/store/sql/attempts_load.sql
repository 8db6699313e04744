-- The attempts of one delivery, in order. Parameters: $1 delivery id, $2 its day. Index: attempt_pkey. Locks: none.
SELECT attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, response_code, response_body, error, url,
       dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer
FROM dispatcher.attempt
WHERE day = $2 AND delivery_id = $1
ORDER BY attempt_number
LIMIT 1000
