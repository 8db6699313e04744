-- Day partitions that should exist and do not, by the catalogues: a table of that name that is detached counts as missing.
--
-- Parameters: $1 days ahead; $2 whether the days of waiting deliveries are looked at too (reads delivery_open whole).
-- Looks at yesterday, today and the days ahead, up to the newest partition. Older days may have gone with retention.
-- Index: none. Locks: none.
WITH parent AS (
    SELECT c.oid, c.relname::text AS name
    FROM pg_class AS c
    WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'p'
      AND c.relname IN ('event', 'body', 'delivery_done', 'attempt')
), attached AS MATERIALIZED (
    SELECT p.name, to_date(right(part.relname, 8), 'YYYYMMDD') AS day
    FROM parent AS p
    JOIN pg_inherits AS i ON i.inhparent = p.oid
    JOIN pg_class AS part ON part.oid = i.inhrelid
), needed AS (
    SELECT p.name, (clock_timestamp() AT TIME ZONE 'UTC')::date + ahead AS day
    FROM parent AS p CROSS JOIN generate_series(-1, $1::integer) AS ahead
    UNION
    SELECT p.name, d.day::date
    FROM parent AS p
    CROSS JOIN generate_series((clock_timestamp() AT TIME ZONE 'UTC')::date - 1,
                               (SELECT max(day) FROM attached), interval '1 day') AS d (day)
    UNION
    SELECT p.name, w.day
    FROM parent AS p CROSS JOIN (SELECT DISTINCT day FROM dispatcher.delivery_open WHERE $2) AS w
)
SELECT n.name AS "table", n.day, n.day - (clock_timestamp() AT TIME ZONE 'UTC')::date AS days_from_today
FROM needed AS n
WHERE NOT EXISTS (SELECT FROM attached AS a WHERE a.name = n.name AND a.day = n.day)
ORDER BY n.day, n.name
