-- Moves the sequence of events forward. The caller holds the mark's lock and has seen that it is behind.
--
-- Parameters: $1 the number that counts as given last. Needs UPDATE on the sequence, which its owner has.
SELECT setval('dispatcher.event_number', $1)
