-- Lets the next statement of this transaction read the index of a day's text, and bounds it.
--
-- Parameters: $1 milliseconds, as text. Locks: none. Without index scans the planner cannot take the order of acceptance,
-- which is the way of a search without the index.
SELECT set_config('statement_timeout', $1, true), set_config('enable_bitmapscan', 'on', true),
       set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true)
