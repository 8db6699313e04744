-- Which of these ids accepted events have.
--
-- Parameters: $1 ids, $2 and $3 the first and the last day (store/day_walk.py). Index: event_pkey of each day. Locks: none.
SELECT e.id FROM dispatcher.event AS e WHERE e.id = ANY ($1::text[]) AND e.day BETWEEN $2::date AND $3::date
