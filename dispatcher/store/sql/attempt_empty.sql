-- Empties a day of attempts. Parameters: $1 day. Returns what became of it, in a word.
-- Locks: ACCESS EXCLUSIVE on the day's partition, waited for 200 ms at most.
SELECT dispatcher.empty_attempts($1::date)
