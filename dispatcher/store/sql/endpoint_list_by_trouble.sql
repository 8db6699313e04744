-- The ids of endpoints that are not deleted, those in trouble first: disabled or down, degraded, recovering; then by their
-- failed deliveries, then by name.
--
-- Parameters: $1 tenant, $2 name, $3 a part of the name, $4 profile, $5 state, $6 health (NULL: any), $7 failed
--   deliveries read at most, $8 rows at most, $9 rows to leave out, $10 the day from which failed deliveries are counted.
-- Failed deliveries are read from the index alone, some 0.2 µs each. Of those beyond $7 the order is by health and
-- name alone.
-- Index: delivery_done_failed of the days, endpoint_status_pkey; endpoints are thousands at most. Locks: none.
WITH counted AS MATERIALIZED (
    SELECT f.endpoint_no AS number, count(*) AS failed_count
    FROM (SELECT endpoint_no FROM dispatcher.delivery_done
          WHERE state = 4 /* failed */ AND NOT test AND day >= $10::date LIMIT $7) AS f
    GROUP BY f.endpoint_no
)
SELECT e.id
FROM dispatcher.endpoint AS e
LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = e.id
LEFT JOIN counted AS c ON c.number = e.number
WHERE e.deleted_at IS NULL
  AND ($1::text IS NULL OR e.tenant = $1)
  AND ($2::text IS NULL OR e.name = $2)
  AND ($3::text IS NULL OR strpos(lower(e.name), lower($3)) > 0)
  AND ($4::text IS NULL OR e.profile = $4)
  AND ($5::text IS NULL OR e.state = $5)
  AND ($6::text IS NULL OR coalesce(s.health, 'healthy') = $6)
ORDER BY CASE WHEN e.state = 'disabled' OR s.health = 'down' THEN 0 WHEN s.health = 'degraded' THEN 1
              WHEN s.health = 'recovering' THEN 2 ELSE 3 END,
         coalesce(c.failed_count, 0) DESC, e.name, e.id
LIMIT $8 OFFSET $9
