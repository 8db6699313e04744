-- Remembers the highest number of an event and when it was read; returns the time.
--
-- Parameters: $1 number. Index: event_number_mark_pkey. Locks: the one row, which the caller holds.
UPDATE dispatcher.event_number_mark SET number = greatest(number, $1), marked_at = clock_timestamp() RETURNING marked_at
