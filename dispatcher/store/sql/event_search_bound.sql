-- How many of the next accepted events of one day there are, newest first, and when the last of them was accepted.
--
-- Parameters: $1 day, $2 and $3 time and id that all are before (NULL: any), $4 rows at most.
-- Index: event_newest of that day, from $2 down, without the rows. Locks: none.
SELECT count(*) AS rows_count, min(accepted_at) AS floor
FROM (SELECT accepted_at
      FROM dispatcher.event
      WHERE day = $1 AND ($2::timestamptz IS NULL OR accepted_at <= $2 AND ($3::text <> '' OR accepted_at < $2))
      ORDER BY accepted_at DESC
      LIMIT $4) AS slice
