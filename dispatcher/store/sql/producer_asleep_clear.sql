-- Lets producers commit in silence, since this dispatcher polls by itself. Parameters: none. Locks: none.
-- Another dispatcher that sleeps sets the value again within seconds.
SELECT setval('dispatcher.asleep_until', 0)
