-- Says that this dispatcher looks by itself; producers commit in silence. Parameters: none. Locks: lets one go.
SELECT pg_advisory_unlock(1684632432, 1)
