-- The traffic of some subjects in the last hours, the present one included.
--
-- Parameters: $1 subjects, $2 hours. Index: traffic_pkey, one probe an hour and subject. Locks: none.
SELECT t.*
FROM generate_series(0, $2::integer - 1) AS back (hours)
CROSS JOIN unnest($1::text[]) AS s (subject)
JOIN dispatcher.traffic AS t
  ON t.hour = date_trunc('hour', now(), 'UTC') - make_interval(hours => back.hours) AND t.subject = s.subject
ORDER BY t.hour
