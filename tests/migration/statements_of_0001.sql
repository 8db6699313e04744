-- Every statement of the version whose schema was migration 0001 alone, as that version sends it.
--
-- Kept so that a later schema can be shown to serve it: a rolling upgrade runs both at once. Never edited.

-- statement: asleep_lock
SELECT pg_try_advisory_lock(1684632432, 1)

-- statement: asleep_unlock
SELECT pg_advisory_unlock(1684632432, 1)

-- statement: attempts_load
SELECT attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, response_code, response_body, error, url
FROM dispatcher.attempt
WHERE day = $2 AND delivery_id = $1
ORDER BY attempt_number
LIMIT 1000

-- statement: audit_write
INSERT INTO dispatcher.audit (actor, tenant, action, object, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb)

-- statement: control_notify
SELECT pg_notify('dispatcher_control', '')

-- statement: deliveries_arrived
SELECT o.id, o.endpoint_id, extract(epoch FROM o.next_attempt_at - statement_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS e (endpoint_id)
CROSS JOIN LATERAL (
    SELECT d.id, d.endpoint_id, d.next_attempt_at
    FROM dispatcher.delivery_open AS d
    WHERE d.endpoint_id = e.endpoint_id
      AND d.next_attempt_at BETWEEN statement_timestamp() - make_interval(secs => $3) AND statement_timestamp()
    ORDER BY d.next_attempt_at, d.id
    LIMIT $2
) AS o

-- statement: deliveries_cancel_held
WITH picked AS MATERIALIZED (
    SELECT o.id
    FROM dispatcher.endpoint AS p
    CROSS JOIN LATERAL (
        SELECT d.id FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_id = p.id AND d.created_at < clock_timestamp() - make_interval(secs => $1::float8)
        LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE p.state = 'paused' AND p.paused_at < clock_timestamp() - make_interval(secs => $1::float8)
    LIMIT $2
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', 'paused_too_long',
           attempt_count, schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
    RETURNING id
)
SELECT count(*) FROM kept

-- statement: deliveries_cancel_of_endpoints
WITH picked AS MATERIALIZED (
    SELECT o.id, e.reason
    FROM unnest($1::text[], $2::text[]) AS e (endpoint_id, reason)
    CROSS JOIN LATERAL (
        SELECT d.id FROM dispatcher.delivery_open AS d
        WHERE d.endpoint_id = e.endpoint_id LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS o
    LIMIT $3
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o USING picked AS p WHERE o.id = p.id
    RETURNING o.*, p.reason
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', reason, attempt_count,
           schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
    RETURNING id
)
SELECT count(*) FROM kept

-- statement: deliveries_load
SELECT o.id, o.day, o.event_id, o.event_type, o.endpoint_id, o.attempt_count, o.schedule_position, o.state,
       b.bytes AS body, e.inserted_at, e.traceparent,
       extract(epoch FROM o.next_attempt_at - clock_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS w (id)
JOIN dispatcher.delivery_open AS o ON o.id = w.id
JOIN dispatcher.event AS e ON e.day = o.day AND e.id = o.event_id
LEFT JOIN dispatcher.body AS b ON b.day = o.day AND b.event_id = o.event_id AND b.profile = o.profile

-- statement: deliveries_page
WITH page AS (
    (SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, NULL::text AS reason, false AS test,
            attempt_count, schedule_position, next_attempt_at, created_at, NULL::timestamptz AS finished_at, warnings
     FROM dispatcher.delivery_open AS d
     WHERE ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR endpoint_id = $2)
       AND ($3::text IS NULL OR event_id = $3)
       AND ($4::text IS NULL OR event_type = $4)
       AND ($5::text IS NULL OR state = $5)
       AND ($6::boolean IS NULL OR NOT $6)
       AND ($9::timestamptz IS NULL OR created_at >= $9)
       AND ($10::timestamptz IS NULL OR created_at < $10)
       AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12::text))
       AND ($7::text IS NULL OR EXISTS (
            SELECT FROM dispatcher.event AS e WHERE e.day = d.day AND e.id = d.event_id AND e.labels @> $7::jsonb))
       AND ($8::text IS NULL OR left(encode(sha256(convert_to(event_id, 'UTF8')), 'hex'), 16) = $8)
     ORDER BY created_at DESC, id DESC
     LIMIT $13)
    UNION ALL
    (SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test,
            attempt_count, schedule_position, NULL, created_at, finished_at, warnings
     FROM dispatcher.delivery_done AS d
     WHERE ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR endpoint_id = $2)
       AND ($3::text IS NULL OR event_id = $3)
       AND ($4::text IS NULL OR event_type = $4)
       AND ($5::text IS NULL OR state = $5)
       AND ($6::boolean IS NULL OR test = $6)
       AND ($9::timestamptz IS NULL OR created_at >= $9 AND day >= ($9 AT TIME ZONE 'UTC')::date)
       AND ($10::timestamptz IS NULL OR created_at < $10 AND day <= ($10 AT TIME ZONE 'UTC')::date)
       AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12::text)
                                        AND day <= ($11 AT TIME ZONE 'UTC')::date)
       AND ($7::text IS NULL OR EXISTS (
            SELECT FROM dispatcher.event AS e WHERE e.day = d.day AND e.id = d.event_id AND e.labels @> $7::jsonb))
       AND ($8::text IS NULL OR left(encode(sha256(convert_to(event_id, 'UTF8')), 'hex'), 16) = $8)
     ORDER BY created_at DESC, id DESC
     LIMIT $13)
)
SELECT * FROM page ORDER BY created_at DESC, id DESC LIMIT $13

-- statement: deliveries_window
SELECT o.id, o.endpoint_id, extract(epoch FROM o.next_attempt_at - clock_timestamp())::float8 AS due_in_seconds
FROM unnest($1::text[]) AS e (endpoint_id)
CROSS JOIN LATERAL (
    SELECT d.id, d.endpoint_id, d.next_attempt_at
    FROM dispatcher.delivery_open AS d
    WHERE d.endpoint_id = e.endpoint_id
      AND d.next_attempt_at < statement_timestamp() + make_interval(secs => $3::float8)
    ORDER BY d.next_attempt_at, d.id
    LIMIT $2
) AS o

-- statement: delivery_cancel
WITH ended AS (
    DELETE FROM dispatcher.delivery_open WHERE id = $1 RETURNING *
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', 'cancelled_by_person',
           attempt_count, schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
), unasked AS (
    DELETE FROM dispatcher.delivery_request AS r USING ended WHERE r.delivery_id = ended.id AND r.kind = 'resend'
), asked AS (
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, endpoint_id, requested_by)
    SELECT id, 'cancel', day, endpoint_id, $2 FROM ended
    ON CONFLICT (delivery_id, kind) DO NOTHING
)
SELECT id FROM ended

-- statement: delivery_find
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, NULL::text AS reason, false AS test,
       attempt_count, schedule_position, next_attempt_at, created_at, NULL::timestamptz AS finished_at, warnings
FROM dispatcher.delivery_open
WHERE id = $1 AND ($3::text IS NULL OR tenant = $3)
UNION ALL
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test,
       attempt_count, schedule_position, NULL, created_at, finished_at, warnings
FROM dispatcher.delivery_done
WHERE id = $1 AND day = ANY ($2::date[]) AND ($3::text IS NULL OR tenant = $3)

-- statement: delivery_resend
WITH alive AS MATERIALIZED (
    SELECT id FROM dispatcher.endpoint WHERE id = $3 AND deleted_at IS NULL FOR SHARE
)
INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, endpoint_id, requested_by)
SELECT $1, 'resend', $2, id, $4 FROM alive
ON CONFLICT (delivery_id, kind) DO UPDATE
SET requested_at = clock_timestamp(), requested_by = excluded.requested_by
RETURNING endpoint_id

-- statement: endpoint_delete
WITH secrets AS (
    DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = $1
), health AS (
    DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = $1
), requests AS (
    DELETE FROM dispatcher.delivery_request WHERE endpoint_id = $1
)
UPDATE dispatcher.endpoint
SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), headers = '{}'
WHERE id = $1 AND deleted_at IS NULL

-- statement: endpoint_disable
UPDATE dispatcher.endpoint
SET state = 'disabled', reason = $2, updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active' AND deleted_at IS NULL
RETURNING id

-- statement: endpoint_health_clear
DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = ANY ($1::text[])

-- statement: endpoint_health_fail
INSERT INTO dispatcher.endpoint_health AS h (endpoint_id, first_failure_at, failed_attempts)
SELECT f.endpoint_id, f.first_failure_at, f.failed_attempts
FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS f (endpoint_id, first_failure_at, failed_attempts)
JOIN dispatcher.endpoint AS p ON p.id = f.endpoint_id
ON CONFLICT (endpoint_id) DO UPDATE
SET failed_attempts = h.failed_attempts + excluded.failed_attempts
RETURNING h.endpoint_id, extract(epoch FROM clock_timestamp() - h.first_failure_at)::float8 AS failing_seconds,
          h.failed_attempts

-- statement: endpoint_insert
INSERT INTO dispatcher.endpoint
    (id, tenant, name, url, profile, event_types, labels, headers, ca_pem, max_concurrency, rate_limit,
     timeout_seconds, retry_schedule_seconds, ordering, shard)
VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9, $10, $11, $12, $13, $14, $15)

-- statement: endpoint_load
SELECT id, tenant, name, url, profile, event_types, labels::text AS labels, headers::text AS headers, ca_pem,
       max_concurrency, rate_limit, timeout_seconds, retry_schedule_seconds, ordering, state, reason,
       created_at, updated_at
FROM dispatcher.endpoint
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND deleted_at IS NULL

-- statement: endpoint_lock
SELECT id FROM dispatcher.endpoint
WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND deleted_at IS NULL
FOR UPDATE

-- statement: endpoint_pause
UPDATE dispatcher.endpoint
SET state = 'paused', reason = NULL, paused_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE id = $1 AND state = 'active'

-- statement: endpoint_progress
SELECT endpoint_id, count(*) FILTER (WHERE state = 'succeeded') AS delivered,
       count(*) FILTER (WHERE state = 'pending') AS waiting,
       count(*) FILTER (WHERE state = 'retrying') AS retrying,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       sum(attempt_count) AS attempts
FROM dispatcher.delivery
WHERE endpoint_id = ANY ($1::text[]) AND created_at >= $2
GROUP BY endpoint_id

-- statement: endpoint_resume
WITH forgotten AS (
    DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = $1
)
UPDATE dispatcher.endpoint
SET state = 'active', reason = NULL, paused_at = NULL, updated_at = clock_timestamp()
WHERE id = $1 AND state <> 'active'

-- statement: endpoint_update
UPDATE dispatcher.endpoint
SET name = $2, url = $3, event_types = $4, labels = $5::text::jsonb, headers = $6::text::jsonb, ca_pem = $7,
    max_concurrency = $8, rate_limit = $9, timeout_seconds = $10, retry_schedule_seconds = $11, ordering = $12,
    updated_at = clock_timestamp()
WHERE id = $1

-- statement: endpoints_of_tenant
SELECT id, name, event_types, labels::text AS labels, state, reason, created_at, updated_at, deleted_at
FROM dispatcher.endpoint
WHERE tenant = $1
ORDER BY created_at, id

-- statement: endpoints_page
SELECT id, tenant, name, url, profile, event_types, labels::text AS labels, headers::text AS headers, ca_pem,
       max_concurrency, rate_limit, timeout_seconds, retry_schedule_seconds, ordering, state, reason,
       created_at, updated_at
FROM dispatcher.endpoint
WHERE deleted_at IS NULL
  AND ($1::text IS NULL OR tenant = $1)
  AND ($2::text IS NULL OR name = $2)
  AND ($3::text IS NULL OR profile = $3)
  AND ($4::text IS NULL OR state = $4)
  AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::text))
ORDER BY created_at DESC, id DESC
LIMIT $7

-- statement: endpoints_with_nothing_to_send
SELECT p.id, CASE WHEN p.deleted_at IS NULL THEN 'endpoint_disabled' ELSE 'endpoint_deleted' END AS reason
FROM dispatcher.endpoint AS p
WHERE (p.state = 'disabled' OR p.deleted_at IS NOT NULL)
  AND EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.endpoint_id = p.id)
LIMIT 100

-- statement: event_deliveries
SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test, attempt_count,
       schedule_position, next_attempt_at, created_at, finished_at, warnings
FROM dispatcher.delivery
WHERE event_id = $1 AND day = $2
ORDER BY endpoint_id
LIMIT $3

-- statement: event_find
(SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent,
        inserted_at, NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day
 FROM dispatcher.outbox
 WHERE id = $1 AND consumed_at IS NULL AND ($2::text IS NULL OR tenant = $2))
UNION ALL
(SELECT id, type, tenant, data::text, occurred_at, ordering_key, labels::text, traceparent,
        inserted_at, accepted_at, test, day
 FROM dispatcher.event
 WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)
 ORDER BY day DESC
 LIMIT 1)
LIMIT 1

-- statement: event_publish
INSERT INTO dispatcher.outbox (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent)
VALUES ($1, $2::text::json, $3, coalesce($4, 'default'), coalesce($5, now()), $6,
        coalesce($7::text::jsonb, '{}'), $8)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- statement: events_page
WITH waiting AS MATERIALIZED (
    SELECT * FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position DESC LIMIT 1000
), page AS (
    (SELECT id, type, tenant, data::text AS data, occurred_at, ordering_key, labels::text AS labels, traceparent,
            inserted_at, NULL::timestamptz AS accepted_at, false AS test, NULL::date AS day, inserted_at AS at
     FROM waiting
     WHERE ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR type = $2)
       AND ($3::text IS NULL OR labels @> $3::jsonb)
       AND ($4::boolean IS NULL OR NOT $4)
       AND ($5::timestamptz IS NULL OR inserted_at >= $5)
       AND ($6::timestamptz IS NULL OR inserted_at < $6)
       AND ($7::timestamptz IS NULL OR (inserted_at, id) < ($7, $8::text))
     ORDER BY inserted_at DESC, id DESC
     LIMIT $9)
    UNION ALL
    (SELECT id, type, tenant, data::text, occurred_at, ordering_key, labels::text, traceparent,
            inserted_at, accepted_at, test, day, accepted_at
     FROM dispatcher.event
     WHERE ($1::text IS NULL OR tenant = $1)
       AND ($2::text IS NULL OR type = $2)
       AND ($3::text IS NULL OR labels @> $3::jsonb)
       AND ($4::boolean IS NULL OR test = $4)
       AND ($5::timestamptz IS NULL OR accepted_at >= $5 AND day >= ($5 AT TIME ZONE 'UTC')::date)
       AND ($6::timestamptz IS NULL OR accepted_at < $6 AND day <= ($6 AT TIME ZONE 'UTC')::date)
       AND ($7::timestamptz IS NULL OR (accepted_at, id) < ($7, $8::text)
                                       AND day <= ($7 AT TIME ZONE 'UTC')::date)
     ORDER BY accepted_at DESC, id DESC
     LIMIT $9)
)
SELECT * FROM page ORDER BY at DESC, id DESC LIMIT $9

-- statement: fanout_cancel
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
     schedule_position, created_at, finished_at)
SELECT id, $1, event_id, endpoint_id, event_type, tenant, profile, 'cancelled', reason, 0, 0, $2, $2
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
    AS d (id, event_id, endpoint_id, event_type, tenant, profile, reason)

-- statement: gauges
SELECT (SELECT count(*) FROM (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL LIMIT 100000) AS o)
           AS outbox_backlog_events,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - o.inserted_at)
                 FROM dispatcher.outbox AS o WHERE o.consumed_at IS NULL ORDER BY o.position LIMIT 1), 0)::float8
           AS outbox_lag_seconds,
       (SELECT CASE WHEN c.reltuples > 100000 THEN c.reltuples::bigint
                    ELSE (SELECT count(*) FROM (SELECT FROM dispatcher.delivery_open LIMIT 100000) AS d) END
        FROM pg_class AS c WHERE c.oid = 'dispatcher.delivery_open'::regclass) AS pending_deliveries,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.endpoint AS p JOIN dispatcher.delivery_open AS d ON d.endpoint_id = p.id
            WHERE p.state = 'paused' LIMIT 100000) AS h) AS held_deliveries,
       (SELECT count(*) FROM (
            SELECT FROM dispatcher.delivery_open WHERE state = 'retrying' LIMIT 100000) AS r) AS retries_scheduled,
       ARRAY(SELECT p.id FROM dispatcher.endpoint AS p WHERE p.deleted_at IS NULL AND p.state = 'active'
             AND EXISTS (SELECT FROM dispatcher.delivery_open AS d WHERE d.endpoint_id = p.id)) AS due_endpoints,
       ARRAY(SELECT extract(epoch FROM clock_timestamp() - d.next_attempt_at)::float8
             FROM dispatcher.endpoint AS p
             CROSS JOIN LATERAL (SELECT next_attempt_at FROM dispatcher.delivery_open AS o
                                 WHERE o.endpoint_id = p.id ORDER BY o.next_attempt_at LIMIT 1) AS d
             WHERE p.deleted_at IS NULL AND p.state = 'active') AS due_ages_seconds,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'active' AND deleted_at IS NULL) AS active,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'paused' AND deleted_at IS NULL) AS paused,
       (SELECT count(*) FROM dispatcher.endpoint WHERE state = 'disabled' AND deleted_at IS NULL) AS disabled

-- statement: json_kind
SELECT json_typeof($1::text::json)

-- statement: listener_prove
SELECT pg_notify($1, '')

-- statement: missing_privileges
SELECT format('SELECT, INSERT, UPDATE, DELETE on dispatcher.%I', c.relname) AS missing
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
UNION ALL
SELECT format('ownership of dispatcher.%I, to make its partitions', c.relname)
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'p'
  AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT 'CREATE on the schema dispatcher, to make partitions'
WHERE NOT has_schema_privilege('dispatcher', 'CREATE')

-- statement: notify_attach
CREATE CONSTRAINT TRIGGER outbox_3_notify AFTER INSERT ON dispatcher.outbox
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dispatcher.outbox_notify()

-- statement: notify_attached
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'dispatcher.outbox'::regclass AND tgname = 'outbox_3_notify')

-- statement: notify_drop
DROP TRIGGER IF EXISTS outbox_3_notify ON dispatcher.outbox

-- statement: outbox_claim
WITH waiting AS MATERIALIZED (
    SELECT ctid AS row_id, position, id, type, tenant, data, occurred_at, ordering_key, labels, inserted_at,
           CASE WHEN traceparent ~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END
               AS traceparent,
           id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours, octet_length(data::text) AS bytes
    FROM dispatcher.outbox
    WHERE consumed_at IS NULL AND ($3::text IS NULL OR id = $3)
    ORDER BY position
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), taken AS MATERIALIZED (
    SELECT *
    FROM (SELECT *, sum(bytes) OVER (ORDER BY position) - bytes AS bytes_before FROM waiting) AS measured
    WHERE bytes_before < $2
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE ctid = ANY (ARRAY(SELECT row_id FROM taken WHERE id_is_ours))
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = now()
    WHERE ctid = ANY (ARRAY(SELECT row_id FROM taken WHERE NOT id_is_ours))
), kept AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, ordering_key, labels, traceparent, inserted_at, accepted_at)
    SELECT (now() AT TIME ZONE 'UTC')::date, id, type, tenant, data, occurred_at, ordering_key, labels,
           traceparent, inserted_at, now()
    FROM taken
)
SELECT id, type, data::text AS data, tenant, occurred_at, inserted_at,
       CASE WHEN labels <> '{}' THEN labels::text END AS labels, traceparent,
       CASE WHEN bytes_before = 0 THEN now() END AS accepted_at,
       CASE WHEN bytes_before = 0 THEN (SELECT version FROM dispatcher.routing) END AS routing_version
FROM taken
ORDER BY position

-- statement: outbox_forget_tombstones
WITH old AS (
    SELECT ctid AS row_id FROM dispatcher.outbox
    WHERE consumed_at < statement_timestamp() - make_interval(days => $1) AND data IS NULL LIMIT $2
), forgotten AS (
    DELETE FROM dispatcher.outbox WHERE ctid = ANY (ARRAY(SELECT row_id FROM old)) RETURNING 1
)
SELECT count(*) FROM forgotten

-- statement: outbox_oldest
SELECT id FROM dispatcher.outbox WHERE consumed_at IS NULL ORDER BY position LIMIT 1

-- statement: outbox_set_aside
UPDATE dispatcher.outbox SET consumed_at = now() WHERE id = $1 AND consumed_at IS NULL RETURNING id

-- statement: partitions_make
SELECT dispatcher.make_partitions($1)

-- statement: poll
SELECT (SELECT version FROM dispatcher.routing) AS routing_version,
       EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL) AS outbox_waiting,
       EXISTS (SELECT FROM dispatcher.delivery_request) AS requests_waiting

-- statement: producer_role
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dispatcher_producer') THEN
        CREATE ROLE dispatcher_producer NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this cluster made it in the same moment
END $$;
GRANT USAGE ON SCHEMA dispatcher TO dispatcher_producer;
GRANT USAGE ON SEQUENCE dispatcher.event_number TO dispatcher_producer;
GRANT INSERT (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent)
    ON dispatcher.outbox TO dispatcher_producer;
GRANT SELECT (id) ON dispatcher.outbox TO dispatcher_producer;

-- statement: producer_role_problems
SELECT problem
FROM (VALUES ('role dispatcher_producer does not exist',
              NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dispatcher_producer'))) AS v (problem, wrong)
WHERE wrong
UNION ALL
SELECT 'role dispatcher_producer may not insert into dispatcher.outbox'
FROM pg_roles WHERE rolname = 'dispatcher_producer'
  AND NOT (has_schema_privilege(rolname, 'dispatcher', 'USAGE')
           AND has_sequence_privilege(rolname, 'dispatcher.event_number', 'USAGE')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'type', 'INSERT')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'data', 'INSERT')
           AND has_column_privilege(rolname, 'dispatcher.outbox', 'id', 'SELECT'))

-- statement: reading_plan
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'on', true)

-- statement: replica_bury
DELETE FROM dispatcher.replica WHERE incarnation = $1 AND renewed_at = $2 RETURNING incarnation

-- statement: replica_join
INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (incarnation) DO NOTHING

-- statement: replica_leave
DELETE FROM dispatcher.replica WHERE incarnation = $1

-- statement: replica_namesakes
SELECT incarnation, renewed_at FROM dispatcher.replica
WHERE name = $1 AND incarnation <> $2 AND expires_at > clock_timestamp()

-- statement: replica_renew
WITH renewed AS (
    UPDATE dispatcher.replica
    SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => $2::float8)
    WHERE incarnation = $1
    RETURNING incarnation
)
SELECT (SELECT count(*) FROM dispatcher.replica AS r, renewed
        WHERE r.expires_at > clock_timestamp() AND r.incarnation <> renewed.incarnation) AS others,
       ARRAY(SELECT shard FROM dispatcher.shard WHERE owner = $1 ORDER BY shard) AS shards,
       ARRAY(SELECT token FROM dispatcher.shard WHERE owner = $1 ORDER BY shard) AS tokens,
       (SELECT count(*) FROM dispatcher.shard AS s
        WHERE NOT EXISTS (SELECT FROM dispatcher.replica AS r
                          WHERE r.incarnation = s.owner AND r.expires_at > clock_timestamp())) AS free
FROM renewed

-- statement: replicas_alive
SELECT count(*) FROM dispatcher.replica WHERE expires_at > clock_timestamp()

-- statement: replicas_sweep
DELETE FROM dispatcher.replica WHERE expires_at < clock_timestamp() - interval '1 hour'

-- statement: requests_forget
DELETE FROM dispatcher.delivery_request AS r
USING unnest($1::text[], $2::text[]) AS g (delivery_id, kind)
WHERE r.delivery_id = g.delivery_id AND r.kind = g.kind

-- statement: requests_load
SELECT r.kind, r.delivery_id, d.day, d.event_id, d.event_type, d.endpoint_id, d.attempt_count,
       d.schedule_position, d.state, d.reason, b.bytes AS body, e.inserted_at, e.traceparent,
       EXISTS (SELECT FROM dispatcher.attempt AS a
               WHERE a.day = r.day AND a.delivery_id = r.delivery_id AND a.outcome = 'ok'
                 AND r.requested_at BETWEEN a.attempted_at
                     AND a.attempted_at + make_interval(secs => a.latency_seconds + 0.1)) AS answered
FROM dispatcher.delivery_request AS r
JOIN dispatcher.endpoint AS p ON p.id = r.endpoint_id AND p.shard = ANY ($1::smallint[]) AND p.deleted_at IS NULL
LEFT JOIN LATERAL (
    SELECT day, event_id, event_type, endpoint_id, attempt_count, schedule_position, state, reason, profile
    FROM dispatcher.delivery AS v WHERE v.id = r.delivery_id AND v.day = r.day
) AS d ON r.kind = 'resend'
LEFT JOIN dispatcher.event AS e ON e.day = d.day AND e.id = d.event_id
LEFT JOIN dispatcher.body AS b ON b.day = d.day AND b.event_id = d.event_id AND b.profile = d.profile
WHERE NOT (r.delivery_id = ANY ($3::text[]))
ORDER BY r.requested_at
LIMIT $2

-- statement: requests_settle
DELETE FROM dispatcher.delivery_request AS r
USING unnest($1::text[], $2::timestamptz[], $3::boolean[]) AS a (delivery_id, attempted_at, succeeded)
WHERE r.delivery_id = a.delivery_id AND r.kind = 'resend' AND (a.succeeded OR r.requested_at <= a.attempted_at)

-- statement: results_record
WITH fence AS MATERIALIZED (
    SELECT s.shard
    FROM dispatcher.shard AS s
    WHERE (s.shard, s.token) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]))
    FOR SHARE
), given AS MATERIALIZED (
    SELECT r.*, f.shard IS NULL AS fenced
    FROM unnest($3::smallint[], $4::text[], $5::integer[], $6::text[], $7::text[], $8::integer[], $9::float8[])
        AS r (shard, delivery_id, attempt_number, state, reason, schedule_position, due_in_seconds)
    LEFT JOIN fence AS f USING (shard)
), ended AS (
    DELETE FROM dispatcher.delivery_open AS o
    USING given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('succeeded', 'failed') AND NOT g.fenced
    RETURNING o.id, o.day, o.event_id, o.endpoint_id, o.event_type, o.tenant, o.profile, g.state, g.reason,
              g.attempt_number, g.schedule_position, o.created_at, o.warnings
), kept AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_number,
           schedule_position, created_at, clock_timestamp(), warnings
    FROM ended
), waiting AS (
    UPDATE dispatcher.delivery_open AS o
    SET state = g.state, attempt_count = g.attempt_number, schedule_position = g.schedule_position,
        next_attempt_at = coalesce(clock_timestamp() + make_interval(secs => g.due_in_seconds), o.next_attempt_at)
    FROM given AS g
    WHERE o.id = g.delivery_id AND o.attempt_count = g.attempt_number - 1
      AND g.state IN ('pending', 'retrying') AND NOT g.fenced
    RETURNING o.id
), moved AS (
    SELECT id FROM ended UNION ALL SELECT id FROM waiting
)
SELECT delivery_id, fenced FROM given WHERE NOT EXISTS (SELECT FROM moved WHERE moved.id = given.delivery_id)

-- statement: results_record_late
WITH fence AS MATERIALIZED (
    SELECT shard FROM dispatcher.shard WHERE shard = $1 AND token = $2 FOR SHARE
), recorded AS (
    INSERT INTO dispatcher.attempt
        (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
         connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error)
    SELECT $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20
    FROM fence
    WHERE EXISTS (SELECT FROM dispatcher.delivery_done WHERE day = $3 AND id = $4)
    ON CONFLICT DO NOTHING
    RETURNING outcome
), changed AS (
    UPDATE dispatcher.delivery_done
    SET attempt_count = greatest(attempt_count, $5),
        schedule_position = schedule_position + CASE WHEN $6 = 'scheduled' THEN 1 ELSE 0 END,
        state = CASE WHEN $7 = 'ok' THEN 'succeeded' ELSE state END,
        reason = CASE WHEN $7 = 'ok' THEN NULL ELSE reason END,
        finished_at = CASE WHEN $7 = 'ok' AND state <> 'succeeded' THEN clock_timestamp() ELSE finished_at END
    FROM recorded
    WHERE day = $3 AND id = $4
)
SELECT EXISTS (SELECT FROM recorded) AS recorded

-- statement: routing_load
SELECT p.id, p.tenant, p.name, p.url, p.profile, p.event_types, p.labels::text AS labels, p.headers::text AS headers,
       p.ca_pem, p.max_concurrency, p.rate_limit, p.timeout_seconds, p.retry_schedule_seconds, p.state, p.reason,
       p.shard, h.first_failure_at, h.failed_attempts,
       coalesce(array_agg(s.id ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_ids,
       coalesce(array_agg(s.role ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_roles,
       coalesce(array_agg(s.key_id ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secret_key_ids,
       coalesce(array_agg(s.sealed ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secrets_sealed,
       coalesce(array_agg(s.expires_at ORDER BY s.id) FILTER (WHERE s.id IS NOT NULL), '{}') AS secrets_expire_at
FROM dispatcher.endpoint AS p
LEFT JOIN dispatcher.endpoint_secret AS s ON s.endpoint_id = p.id AND s.role <> 'staged'
LEFT JOIN dispatcher.endpoint_health AS h ON h.endpoint_id = p.id
WHERE p.deleted_at IS NULL
GROUP BY p.id, h.endpoint_id

-- statement: routing_version
SELECT version FROM dispatcher.routing

-- statement: schema_applied
SELECT name, checksum FROM dispatcher.schema_migration ORDER BY name

-- statement: schema_bootstrap
CREATE SCHEMA IF NOT EXISTS dispatcher;
CREATE TABLE IF NOT EXISTS dispatcher.schema_migration (
    name        text        NOT NULL PRIMARY KEY,
    phase       text        NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- statement: schema_mark
SELECT coalesce(obj_description(oid, 'pg_namespace'), '') AS mark FROM pg_namespace WHERE nspname = 'dispatcher'

-- statement: schema_mark_dev
COMMENT ON SCHEMA dispatcher IS 'made by dispatcher dev'

-- statement: schema_remember
INSERT INTO dispatcher.schema_migration (name, phase, checksum) VALUES ($1, $2, $3)

-- statement: secret_activate
UPDATE dispatcher.endpoint_secret SET role = 'current' WHERE endpoint_id = $1 AND role = 'staged'

-- statement: secret_forget
DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = $1 AND role = $2

-- statement: secret_insert
INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed) VALUES ($1, $2, $3, $4)

-- statement: secret_retire
WITH forgotten AS (
    DELETE FROM dispatcher.endpoint_secret
    WHERE endpoint_id = $1 AND role = 'previous' AND expires_at <= clock_timestamp()
)
UPDATE dispatcher.endpoint_secret
SET role = 'previous', expires_at = clock_timestamp() + make_interval(secs => $2::float8)
WHERE endpoint_id = $1 AND role = 'current'
RETURNING expires_at

-- statement: secrets_load
SELECT endpoint_id, id, role, key_id, sealed, expires_at
FROM dispatcher.endpoint_secret
WHERE endpoint_id = ANY ($1::text[])
ORDER BY id

-- statement: secrets_sealed
SELECT endpoint_id, key_id, sealed FROM dispatcher.endpoint_secret ORDER BY id

-- statement: server_facts
SELECT current_setting('server_version_num')::integer / 10000 AS major,
       current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding,
       clock_timestamp() AS now,
       pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only,
       current_user::text AS user_name

-- statement: shards_release
UPDATE dispatcher.shard SET owner = NULL WHERE owner = $1 AND shard = ANY ($2::smallint[])

-- statement: shards_take
UPDATE dispatcher.shard AS s
SET owner = $1, token = s.token + 1
WHERE s.shard IN (
    SELECT f.shard FROM dispatcher.shard AS f
    WHERE NOT EXISTS (SELECT FROM dispatcher.replica AS r
                      WHERE r.incarnation = f.owner AND r.expires_at > clock_timestamp())
    ORDER BY f.shard
    LIMIT $2
    FOR UPDATE SKIP LOCKED)
RETURNING s.shard, s.token

-- statement: trial_record
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, test)
    VALUES ($1, $2, $3, $4, $5::text::json, $6, '{}', $6, $6, true)
), body AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES ($1, $2, $7, $8)
), delivered AS (
    INSERT INTO dispatcher.delivery_done
        (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test, attempt_count,
         schedule_position, created_at, finished_at, warnings)
    VALUES ($9, $1, $2, $10, $3, $4, $7, $11, $12, true, 1, 0, $6, clock_timestamp(), $13)
)
INSERT INTO dispatcher.attempt
    (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
     connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error)
VALUES ($1, $9, 1, 'test', $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)

-- statement: writable
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
