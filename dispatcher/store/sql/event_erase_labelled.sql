-- Ids of a day's events that have certain labels: one slice of the day, by id.
--
-- Parameters: $1 day, $2 the last id of the slice before, $3 labels (JSON text), $4 rows to look at, $5 tenant (NULL: any).
-- Returns one row: the last id looked at (NULL: the day is through), and the ids found. Index: event_pkey. Locks: none.
WITH slice AS MATERIALIZED (
    SELECT id, labels, tenant FROM dispatcher.event WHERE day = $1 AND id > $2 ORDER BY id LIMIT $4
)
SELECT max(id) AS last_id,
       coalesce(array_agg(id) FILTER (WHERE labels @> $3::text::jsonb AND ($5::text IS NULL OR tenant = $5)), '{}') AS ids
FROM slice
