-- The ids of endpoints that are not deleted, those in trouble first: disabled or down, degraded, recovering; then by their
-- failed deliveries, then by name.
--
-- Parameters: $1 tenant, $2 name, $3 a part of the name, $4 profile, $5 state, $6 health (NULL: any), $7 the day from
--   which failed deliveries are counted, $8 count at most, $9 endpoints at most whose failed deliveries are counted,
--   $10 rows at most, $11 rows to leave out.
-- The endpoints with failed deliveries are found by steps from one to the next in the index, however many deliveries
-- each of them has. Of those beyond $9 the order is by health and name alone.
-- Index: delivery_done_failed of the days, endpoint_status_pkey; endpoints are thousands at most. Locks: none.
WITH RECURSIVE failing AS (
    (SELECT min(d.endpoint_no) AS number, 1 AS step FROM dispatcher.delivery_done AS d
     WHERE d.state = 4 /* failed */ AND NOT d.test AND d.day >= $7::date)
    UNION ALL
    SELECT (SELECT min(d.endpoint_no) FROM dispatcher.delivery_done AS d
            WHERE d.state = 4 AND NOT d.test AND d.day >= $7 AND d.endpoint_no > f.number), f.step + 1
    FROM failing AS f
    WHERE f.number IS NOT NULL AND f.step < $9
), counted AS MATERIALIZED (
    SELECT f.number, c.failed_count
    FROM failing AS f
    CROSS JOIN LATERAL (
        SELECT count(*) AS failed_count FROM (
            SELECT FROM dispatcher.delivery_done AS d
            WHERE d.endpoint_no = f.number AND d.state = 4 AND NOT d.test AND d.day >= $7 LIMIT $8 + 1) AS bounded
    ) AS c
    WHERE f.number IS NOT NULL
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
LIMIT $10 OFFSET $11
