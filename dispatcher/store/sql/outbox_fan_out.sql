-- Claims events that were read without a lock, and writes them with their deliveries, in one statement.
--
-- Parameters: $1 events (dispatcher.claimed_event: `data_offset` and `data_length` are the place of the data in the bytes,
--   NULL if they are not in them; `position` is NULL for an event that has no order), $2 when they were accepted, $3 its
--   day, $4 deliveries (dispatcher.opened_delivery), $5 whether the commit waits for the disk, $6 our incarnation if other
--   replicas have to be notified of deliveries (see delivery_open_notify.sql), NULL otherwise.
-- Returns the ids of the events that it claimed. It leaves those that another replica has claimed or is claiming.
-- Index: outbox_pkey. Locks: the rows that it claims.
-- `= ANY (ARRAY(…))` compares with 16 ids at most, and costs less than building the hash table of a join.
-- num_nulls(), because `IS NULL` fits the partial index outbox_waiting: a plan that PostgreSQL 15 or 16 makes on an empty
-- table would read all waiting events for each claim.
WITH given AS MATERIALIZED (
    SELECT e.* FROM unnest($1::dispatcher.claimed_event[]) AS e
), taken AS MATERIALIZED (
    SELECT id, id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours
    FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT g.id FROM given AS g)) AND num_nulls(consumed_at) = 1
    FOR UPDATE SKIP LOCKED
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE id_is_ours))
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, bytes = 0, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE NOT id_is_ours))
), written AS (
    INSERT INTO dispatcher.event
        (inserted_at, accepted_at, occurred_at, day, data_offset, data_length, id, type, tenant, profile, labels,
         ordering_key, traceparent, data, bytes, position)
    SELECT e.inserted_at, $2, e.occurred_at, $3, e.data_offset, e.data_length, e.id, e.type, e.tenant, e.profile, e.labels,
           e.ordering_key, e.traceparent, e.data, e.bytes, e.position
    FROM given AS e
    WHERE e.id = ANY (ARRAY(SELECT id FROM taken))
), opened AS (
    INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code)
    SELECT d.id, $3, d.event_id, d.endpoint_no, d.event_type_code
    FROM unnest($4::dispatcher.opened_delivery[]) AS d
    WHERE d.event_id = ANY (ARRAY(SELECT id FROM taken))
)
SELECT id,
       CASE WHEN NOT $5 THEN set_config('synchronous_commit', 'off', true) END AS unflushed,
       CASE WHEN $6::text IS NOT NULL AND pg_notification_queue_usage() < 0.5
            THEN pg_notify('dispatcher_arrived', $6) END AS notified
FROM taken
