-- Lets this transaction's questions be planned for their own filters: a filter that is NULL then costs nothing.
--
-- Parameters: none. Locks: none. The open deliveries have no index by time: reading them whole must stay allowed.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'on', true)
