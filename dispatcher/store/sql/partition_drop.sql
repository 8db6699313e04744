-- Drops a day of a history table. Parameters: $1 table, $2 day. Returns what became of it, in a word.
-- Locks: ACCESS EXCLUSIVE on the table, waited for 200 ms at most.
SELECT dispatcher.drop_day($1::text, $2::date)
