-- Moves the sequence of events forward, never back: producers may have drawn numbers since it was seen to be behind.
-- The caller holds the mark's lock. Returns the number that counts as given last.
--
-- Parameters: $1 the highest number of an event, $2 how many numbers are left out behind it. Needs SELECT and UPDATE on the
-- sequence, which its owner has.
SELECT setval('dispatcher.event_number', greatest($1::bigint, last_value) + $2::bigint) FROM dispatcher.event_number
