-- The traffic of one subject in the last minutes, the present one included.
--
-- Parameters: $1 subject, $2 minutes. Index: traffic_minute_pkey. Locks: none.
SELECT minute, ok_count, refused_count, timeout_count, unreachable_count, succeeded_count, failed_count, latency_counts
FROM dispatcher.traffic_minute
WHERE subject = $1 AND minute > now() - make_interval(mins => $2::integer)
ORDER BY minute
