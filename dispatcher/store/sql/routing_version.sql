-- The number that grows with every change of an endpoint or a secret. Parameters: none. Locks: none.
SELECT version FROM dispatcher.routing
