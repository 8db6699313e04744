-- Does what outbox_fan_out.sql does with events whose ids the outbox made: none of them leaves a tombstone, so there is no
-- UPDATE. PostgreSQL prepares one in each call even if it changes no row, which was a fifth of the statement's CPU (ADR 127).
--
-- Parameters, result and locks: as there; every id has the form evt_YYYY_NNNNNN. Index: outbox_pkey.
WITH given AS MATERIALIZED (
    SELECT e.* FROM unnest($1::dispatcher.claimed_event[]) AS e
), taken AS MATERIALIZED (
    SELECT id
    FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT g.id FROM given AS g)) AND num_nulls(consumed_at) = 1
    FOR UPDATE SKIP LOCKED
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT id FROM taken))
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
