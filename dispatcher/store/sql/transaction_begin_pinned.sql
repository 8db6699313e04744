-- Begins a transaction in a session of ours, which connection_pin.sql has set up. Parameters: none. Locks: none.
BEGIN ISOLATION LEVEL READ COMMITTED
