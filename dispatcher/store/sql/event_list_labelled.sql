-- The newest accepted events that have some labels, or a value under any label.
--
-- Parameters (NULL: any): $1 labels (JSON text), $2 a JSON path that a label must fulfil, $3 tenant, $4 since,
--   $5 until (not included), $6 the day at most; $7 rows at most; $8 and $9 the first and the last day
--   (store/day_walk.py), never NULL.
-- Index: event_labels of each day, or event_newest, which has a hash of the tenant, where the planner knows the label
--   as common. Locks: none.
-- Day by day from the newest, and no further than the page needs: days are in the order of their events. The day
-- as a range drops the other partitions when the statement is planned, before they are locked; `day = d.day` picks
-- one of the rest.
SELECT e.day, e.id, e.inserted_at, e.accepted_at
FROM (SELECT right(c.relname, 8)::date AS day
      FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
      WHERE i.inhparent = 'dispatcher.event'::regclass
      ORDER BY day DESC
      LIMIT 10000) AS d
CROSS JOIN LATERAL (
    SELECT day, id, inserted_at, accepted_at
    FROM dispatcher.event
    WHERE day BETWEEN $8::date AND $9::date AND day = d.day AND labels <> '{}'
      AND ($1::text IS NULL OR labels @> $1::jsonb)
      AND ($2::text IS NULL OR labels @? $2::jsonpath)
      AND ($3::text IS NULL OR tenant = $3 AND hashtext(tenant) = hashtext($3))
      AND ($4::timestamptz IS NULL OR accepted_at >= $4)
      AND ($5::timestamptz IS NULL OR accepted_at < $5)
    ORDER BY accepted_at DESC, id DESC
    LIMIT $7
) AS e
WHERE d.day BETWEEN $8::date AND $9::date
  AND ($4::timestamptz IS NULL OR d.day >= ($4 AT TIME ZONE 'UTC')::date)
  AND ($5::timestamptz IS NULL OR d.day <= ($5 AT TIME ZONE 'UTC')::date)
  AND ($6::date IS NULL OR d.day <= $6)
ORDER BY d.day DESC, e.accepted_at DESC, e.id DESC
LIMIT $7
