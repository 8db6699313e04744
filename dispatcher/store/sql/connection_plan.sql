-- Lets this transaction's questions be planned for their own filters: a filter that is NULL then costs nothing.
--
-- Parameters: none. Locks: none. The index of labels can be used by bitmaps alone, so they are allowed again; reading
-- a table whole stays the last resort, which costs the double of reading its index.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_bitmapscan', 'on', true)
