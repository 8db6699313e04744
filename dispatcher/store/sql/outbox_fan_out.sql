-- Claims events that were read without a lock, and writes them with their deliveries, in one statement.
--
-- Parameters: events, one element each: $1 ids, $2 when they were inserted, $3 when they occurred, $4 offset and $5 length of
--   the data in the bytes, $6 types, $7 tenants, $8 profiles, $9 labels (JSON), $10 ordering keys, $11 traceparents,
--   $12 data, $13 bytes; $14 when they were accepted, $15 its day; deliveries: $16 ids, $17 ids of their events, $18 numbers
--   of their endpoints, $19 codes of their event types; $20 whether the commit waits for the disk, $21 our incarnation if
--   other replicas have to be notified of deliveries (see delivery_open_notify.sql), NULL otherwise; $22 positions of the
--   events, NULL for one that has no order.
-- Returns the ids of the events that it claimed. It leaves those that another replica has claimed or is claiming.
-- Index: outbox_pkey. Locks: the rows that it claims.
-- num_nulls(), because `IS NULL` fits the partial index outbox_waiting: a plan that PostgreSQL 15 or 16 makes on an empty
-- table would read all waiting events for each claim.
WITH taken AS MATERIALIZED (
    SELECT id, id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours
    FROM dispatcher.outbox
    WHERE id = ANY ($1::text[]) AND num_nulls(consumed_at) = 1
    FOR UPDATE SKIP LOCKED
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE id_is_ours))
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE NOT id_is_ours))
), written AS (
    INSERT INTO dispatcher.event
        (inserted_at, accepted_at, occurred_at, day, data_offset, data_length, id, type, tenant, profile, labels,
         ordering_key, traceparent, data, bytes, position)
    SELECT e.inserted_at, $14, e.occurred_at, $15, e.data_offset, e.data_length, e.id, e.type, e.tenant, e.profile,
           e.labels::jsonb, e.ordering_key, e.traceparent, e.data::json, e.bytes, e.position
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::integer[], $5::integer[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bytea[], $22::bigint[])
        AS e (id, inserted_at, occurred_at, data_offset, data_length, type, tenant, profile, labels, ordering_key,
              traceparent, data, bytes, position)
    WHERE e.id IN (SELECT id FROM taken)
), opened AS (
    INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code)
    SELECT d.id, $15, d.event_id, d.endpoint_no, d.event_type_code
    FROM unnest($16::uuid[], $17::text[], $18::integer[], $19::integer[]) AS d (id, event_id, endpoint_no, event_type_code)
    WHERE d.event_id IN (SELECT id FROM taken)
)
SELECT id,
       CASE WHEN NOT $20 THEN set_config('synchronous_commit', 'off', true) END AS unflushed,
       CASE WHEN $21::text IS NOT NULL AND pg_notification_queue_usage() < 0.5
            THEN pg_notify('dispatcher_arrived', $21) END AS notified
FROM taken
