-- Locks the mark of the highest event number and returns it; inserts it where a dump without rows left it out.
--
-- Parameters: none. Returns the number. Index: event_number_mark_pkey.
-- Locks: the one row, until the end of the transaction: replicas verify the sequence one after the other.
INSERT INTO dispatcher.event_number_mark AS m (number) VALUES (0)
ON CONFLICT (singleton) DO UPDATE SET number = m.number
RETURNING number
