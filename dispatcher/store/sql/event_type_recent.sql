-- The types of the newest events since a time, with how many of each and the last one.
--
-- Parameters: $1 since, $2 its day, $3 events that are read, $4 tenant (NULL: any), $5 types at most.
-- Returns in each row how many events were read and the time of the oldest of them.
-- Index: event_newest of the days since then, from the newest; the rows that are read bound the time, so that of a deployment
-- with many events a day only the newest are counted. Locks: none.
WITH newest AS MATERIALIZED (
    SELECT type, tenant, test, accepted_at
    FROM dispatcher.event
    WHERE day >= $2::date AND accepted_at >= $1::timestamptz
    ORDER BY accepted_at DESC
    LIMIT $3
), bound AS MATERIALIZED (
    SELECT count(*) AS read_count, min(accepted_at) AS oldest_at FROM newest
)
SELECT b.read_count, b.oldest_at, t.*
FROM bound AS b
LEFT JOIN (
    SELECT type, count(*) AS events_count, max(accepted_at) AS last_at
    FROM newest
    WHERE NOT test AND ($4::text IS NULL OR tenant = $4)
    GROUP BY type
    ORDER BY count(*) DESC, type
    LIMIT $5
) AS t ON true
ORDER BY t.events_count DESC, t.type
