-- Makes the day partitions that are missing from yesterday on. Parameters: $1 days ahead. Returns how many.
-- Locks: SHARE UPDATE EXCLUSIVE on each parent that gets one.
SELECT dispatcher.make_partitions($1::integer)
