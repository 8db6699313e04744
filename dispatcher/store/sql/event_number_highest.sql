-- The highest number among waiting events and the mark; NULL where there are neither.
--
-- Parameters: none.
-- Index: outbox_waiting, read backwards. Locks: none.
SELECT greatest((SELECT max(position) FROM dispatcher.outbox WHERE consumed_at IS NULL),
                (SELECT number FROM dispatcher.event_number_mark))
