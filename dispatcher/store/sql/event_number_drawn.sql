-- The last number that the sequence of events gave; 0 where it gave none.
--
-- Parameters: none.
-- Locks: none. Needs SELECT on the sequence, which its owner has.
SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM dispatcher.event_number
