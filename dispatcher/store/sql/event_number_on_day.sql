-- The highest number among the newest events of one day; NULL where none has a generated id.
--
-- The newest 10,000 suffice: numbers follow acceptance but for concurrent transactions and tenants that took turns.
-- Parameters: $1 day. Index: event_newest of that partition, read backwards. Locks: none.
SELECT max(substring(newest.id FROM 10)::bigint)
FROM (SELECT id FROM dispatcher.event WHERE day = $1 ORDER BY accepted_at DESC LIMIT 10000) AS newest
WHERE newest.id ~ '^evt_[0-9]{4}_[0-9]{6,18}$'
