-- The ids of endpoints that have a problem: disabled, not healthy, or with failed deliveries; the worst first.
--
-- Parameters: $1 tenant (NULL: all), $2 whether failed deliveries are a problem, $3 the day from which they are counted,
--   $4 failed deliveries read at most: endpoints whose failed deliveries are all beyond are left out, $5 rows at most.
-- Index: delivery_done_failed of the days, endpoint_status_pkey; endpoints are thousands at most. Locks: none.
WITH failed AS MATERIALIZED (
    SELECT d.endpoint_no AS number, count(*) AS failed_count
    FROM (
        SELECT endpoint_no FROM dispatcher.delivery_done
        WHERE $2::boolean AND state = 4 /* failed */ AND NOT test AND day >= $3::date
          AND ($1::text IS NULL OR endpoint_no IN (SELECT number FROM dispatcher.endpoint WHERE tenant = $1))
        LIMIT $4
    ) AS d
    GROUP BY d.endpoint_no
)
SELECT e.id
FROM dispatcher.endpoint AS e
LEFT JOIN dispatcher.endpoint_status AS s ON s.endpoint_id = e.id
LEFT JOIN failed AS f ON f.number = e.number
WHERE e.deleted_at IS NULL
  AND ($1::text IS NULL OR e.tenant = $1)
  AND (e.state = 'disabled' OR s.endpoint_id IS NOT NULL OR f.number IS NOT NULL)
ORDER BY CASE WHEN e.state = 'disabled' OR s.health = 'down' THEN 0 WHEN s.health = 'degraded' THEN 1
              WHEN s.health = 'recovering' THEN 2 ELSE 3 END,
         coalesce(f.failed_count, 0) DESC, e.name, e.id
LIMIT $5
