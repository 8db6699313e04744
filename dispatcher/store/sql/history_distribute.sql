-- Distributes history over the workers by event id. history_functions.sql comes after it, in the same transaction.
--
-- Parameters: none. Locks: ACCESS EXCLUSIVE on the four tables. The number of shards is citus.shard_count.
SET LOCAL citus.multi_shard_modify_mode = sequential;
SELECT create_distributed_table('dispatcher.event', 'id', colocate_with => 'none');
SELECT create_distributed_table('dispatcher.body', 'event_id', colocate_with => 'dispatcher.event');
SELECT create_distributed_table('dispatcher.delivery_done', 'event_id', colocate_with => 'dispatcher.event');
SELECT create_distributed_table('dispatcher.attempt', 'event_id', colocate_with => 'dispatcher.event');
SELECT create_distributed_function('dispatcher.event_text(text, text, jsonb, json, bytea)');
