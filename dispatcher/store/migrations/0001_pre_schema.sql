-- The first schema: what producers insert into, what waits to be sent, and what became of it.
--
--   outbox            hot: committed events nobody has taken yet, and the ids producers gave (tombstones)
--   event, body       history, one partition a UTC day of acceptance: the facts and the bytes made of them
--   delivery_open     hot: deliveries that are pending or retrying; small, whatever the history's size
--   delivery_done     history, by day: deliveries that ended, each written once
--   delivery          the view over both: what people and the API mean by a delivery
--   attempt           history, by day: every HTTP request
--   delivery_request  hot: what people asked (resend, cancel) and has not been carried out yet
--   endpoint, endpoint_secret, endpoint_health, routing     who gets what; routing.version grows with each change
--   replica, shard    who may send for whom, and the token that stops a replica that lost its right
--
-- CHECKs hold the state machine: an open delivery has a due time and no end, an ended one the reverse.
-- A delivery is in one of the two tables, since it moves between them within one statement.

-- Numbers events: never resets, orders the outbox, and makes the ids that producers leave out.
CREATE SEQUENCE dispatcher.event_number AS bigint;

CREATE FUNCTION dispatcher.labels_are_valid(labels jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_typeof(labels) = 'object'
   AND (SELECT count(*) <= 20
               AND coalesce(bool_and(key ~ '^[a-z0-9_.-]{1,64}$' AND jsonb_typeof(value) = 'string'
                                     AND length(value #>> '{}') <= 256), true)
        FROM jsonb_each(CASE jsonb_typeof(labels) WHEN 'object' THEN labels ELSE '{}' END));

CREATE TABLE dispatcher.outbox (
    position      bigint      NOT NULL DEFAULT nextval('dispatcher.event_number'),
    id            text        COLLATE "C" NOT NULL,
    type          text        COLLATE "C" NOT NULL,
    tenant        text        COLLATE "C" NOT NULL DEFAULT 'default',
    data          json,
    occurred_at   timestamptz NOT NULL DEFAULT now(),
    ordering_key  text,
    labels        jsonb       NOT NULL DEFAULT '{}',
    traceparent   text,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    consumed_at   timestamptz, -- set on tombstones: the id is remembered, the data is gone
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT id_is_1_to_64_letters_digits_underscores_hyphens
        CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    CONSTRAINT type_is_lower_case_words_joined_by_dots_up_to_128
        CHECK (type ~ '^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$' AND length(type) <= 128),
    CONSTRAINT type_prefix_dispatcher_is_reserved
        CHECK (type NOT LIKE 'dispatcher.%'),
    CONSTRAINT tenant_is_1_to_64_lower_case_letters_digits_underscores_hyphens
        CHECK (tenant ~ '^[a-z0-9_-]{1,64}$'),
    CONSTRAINT data_is_required
        CHECK (data IS NOT NULL OR consumed_at IS NOT NULL),
    CONSTRAINT data_is_a_json_object
        CHECK (json_typeof(data) = 'object'),
    CONSTRAINT data_is_at_most_1_mebibyte
        CHECK (octet_length(data::text) <= 1048576),
    CONSTRAINT occurred_at_is_in_the_years_1970_to_9999
        CHECK (occurred_at >= '1970-01-01 00:00:00+00' AND occurred_at < '10000-01-01 00:00:00+00'),
    CONSTRAINT ordering_key_is_at_most_256_characters
        CHECK (length(ordering_key) <= 256),
    CONSTRAINT labels_are_at_most_20_named_strings
        CHECK (labels = '{}' OR dispatcher.labels_are_valid(labels)),
    CONSTRAINT traceparent_is_at_most_256_characters
        CHECK (length(traceparent) <= 256)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);

-- The only order a claim needs; tombstones are not in it.
CREATE INDEX outbox_waiting ON dispatcher.outbox (position) WHERE consumed_at IS NULL;

-- Runs for every row whose producer left the id out. lpad() would cut a seventh digit off.
CREATE FUNCTION dispatcher.outbox_make_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.id := 'evt_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY') || '_'
           || CASE WHEN NEW.position < 1000000 THEN lpad(NEW.position::text, 6, '0')
                   ELSE NEW.position::text END;
    RETURN NEW;
END $$;

CREATE FUNCTION dispatcher.outbox_refuse_reserved_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'check_violation', SCHEMA = 'dispatcher', TABLE = 'outbox', COLUMN = 'id',
        CONSTRAINT = 'id_form_evt_year_number_is_reserved',
        MESSAGE = format('new row for relation "outbox" violates rule "id_form_evt_year_number_is_reserved": %L', NEW.id),
        HINT = 'Leave id out (or NULL) to have one made, or give one of another form.';
END $$;

-- What retention of tombstones reads.
CREATE INDEX outbox_tombstones ON dispatcher.outbox (consumed_at) WHERE consumed_at IS NOT NULL;

-- Triggers of one kind run by name: the reserved form is judged before an id of that form is made.
CREATE TRIGGER outbox_1_refuse_reserved_id BEFORE INSERT ON dispatcher.outbox FOR EACH ROW
    WHEN (NEW.id ~ '^evt_[0-9]{4}_[0-9]{6,}$') EXECUTE FUNCTION dispatcher.outbox_refuse_reserved_id();
CREATE TRIGGER outbox_2_make_id BEFORE INSERT ON dispatcher.outbox FOR EACH ROW
    WHEN (NEW.id IS NULL) EXECUTE FUNCTION dispatcher.outbox_make_id();

-- The wake-up call. It is a hint: polling finds what it misses. Held by whoever sleeps: advisory lock
-- (1684632432, 1), exclusively, on the LISTEN connection. A producer that gets it (shared, given back in the
-- same call, so that it never holds it to its commit) knows that nobody sleeps and stays silent, for a
-- NOTIFY takes a lock across the database at commit. `migrate` attaches it as `intake.notify` says.
-- pg_notification_queue_usage(): a queue stuck behind another listener must never fail a producer's commit.
CREATE FUNCTION dispatcher.outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One expression, no statement: PERFORM would start the executor for each row.
    IF (CASE WHEN pg_try_advisory_lock_shared(1684632432, 1)
             THEN NOT pg_advisory_unlock_shared(1684632432, 1)
             ELSE pg_notification_queue_usage() < 0.5 END) THEN
        NOTIFY dispatcher_outbox;
    END IF;
    RETURN NULL;
END $$;

CREATE TABLE dispatcher.event (
    day           date        NOT NULL, -- UTC day on which the dispatcher accepted it
    id            text        COLLATE "C" NOT NULL,
    type          text        COLLATE "C" NOT NULL,
    tenant        text        COLLATE "C" NOT NULL,
    data          json        NOT NULL,
    occurred_at   timestamptz NOT NULL,
    ordering_key  text,
    labels        jsonb       NOT NULL,
    traceparent   text,
    inserted_at   timestamptz NOT NULL,
    accepted_at   timestamptz NOT NULL,
    test          boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
CREATE INDEX event_newest ON dispatcher.event (accepted_at, id);

-- The bytes that go over the wire, made once at fan-out, one row an event and profile.
CREATE TABLE dispatcher.body (
    day           date        NOT NULL,
    event_id      text        COLLATE "C" NOT NULL,
    profile       text        COLLATE "C" NOT NULL,
    bytes         bytea       NOT NULL,
    PRIMARY KEY (day, event_id, profile)
) PARTITION BY RANGE (day);

CREATE TABLE dispatcher.delivery_open (
    id                text        COLLATE "C" NOT NULL PRIMARY KEY,
    day               date        NOT NULL,
    event_id          text        COLLATE "C" NOT NULL,
    endpoint_id       text        COLLATE "C" NOT NULL,
    event_type        text        COLLATE "C" NOT NULL,
    tenant            text        COLLATE "C" NOT NULL,
    profile           text        COLLATE "C" NOT NULL,
    state             text        COLLATE "C" NOT NULL DEFAULT 'pending',
    attempt_count     integer     NOT NULL DEFAULT 0,
    schedule_position integer     NOT NULL DEFAULT 0,
    next_attempt_at   timestamptz NOT NULL DEFAULT now(), -- due at once, the claim's transaction being now()
    created_at        timestamptz NOT NULL DEFAULT now(),
    warnings          text[], -- NULL: none, as nearly always; an empty array costs 1 µs to encode
    CONSTRAINT open_state CHECK (
        state = 'pending' AND schedule_position = 0 OR state = 'retrying' AND schedule_position > 0),
    CONSTRAINT open_counts CHECK (schedule_position >= 0 AND attempt_count >= schedule_position)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
-- What a lane loads next, and an endpoint's waiting deliveries in order of due time.
CREATE INDEX delivery_open_due ON dispatcher.delivery_open (endpoint_id, next_attempt_at, id);
-- Fan-out is idempotent; an event's waiting deliveries.
CREATE UNIQUE INDEX delivery_open_event_endpoint ON dispatcher.delivery_open (event_id, endpoint_id, day);

CREATE TABLE dispatcher.delivery_done (
    id                text        COLLATE "C" NOT NULL,
    day               date        NOT NULL,
    event_id          text        COLLATE "C" NOT NULL,
    endpoint_id       text        COLLATE "C" NOT NULL,
    event_type        text        COLLATE "C" NOT NULL,
    tenant            text        COLLATE "C" NOT NULL,
    profile           text        COLLATE "C" NOT NULL,
    state             text        COLLATE "C" NOT NULL,
    reason            text        COLLATE "C",
    test              boolean     NOT NULL DEFAULT false,
    attempt_count     integer     NOT NULL,
    schedule_position integer     NOT NULL,
    created_at        timestamptz NOT NULL,
    finished_at       timestamptz NOT NULL,
    warnings          text[], -- NULL: none, as nearly always; an empty array costs 1 µs to encode
    PRIMARY KEY (day, id),
    CONSTRAINT done_state CHECK (
        state = 'succeeded' AND reason IS NULL OR state IN ('failed', 'cancelled') AND reason IS NOT NULL),
    CONSTRAINT done_attempts CHECK (state <> 'succeeded' OR attempt_count > 0),
    CONSTRAINT done_counts CHECK (schedule_position >= 0 AND attempt_count >= schedule_position)
) PARTITION BY RANGE (day);
CREATE UNIQUE INDEX delivery_done_event_endpoint ON dispatcher.delivery_done (event_id, endpoint_id, day);
CREATE INDEX delivery_done_by_endpoint ON dispatcher.delivery_done (endpoint_id, created_at, id);
CREATE INDEX delivery_done_newest ON dispatcher.delivery_done (created_at, id);
-- The list of what failed, which people ask for most: few rows among many, found without reading the many.
CREATE INDEX delivery_done_unsuccessful ON dispatcher.delivery_done (created_at, id) WHERE state <> 'succeeded';

CREATE VIEW dispatcher.delivery AS
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, NULL::text AS reason,
           false AS test, attempt_count, schedule_position, next_attempt_at, created_at,
           NULL::timestamptz AS finished_at, warnings
    FROM dispatcher.delivery_open
    UNION ALL
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason,
           test, attempt_count, schedule_position, NULL, created_at, finished_at, warnings
    FROM dispatcher.delivery_done;

CREATE TABLE dispatcher.attempt (
    day               date        NOT NULL,
    delivery_id       text        COLLATE "C" NOT NULL,
    attempt_number    integer     NOT NULL CHECK (attempt_number >= 1),
    trigger           text        COLLATE "C" NOT NULL CHECK (trigger IN ('scheduled', 'manual', 'replay', 'test')),
    outcome           text        COLLATE "C" NOT NULL CHECK (outcome IN (
        'ok', 'http_error', 'gone', 'throttled', 'timeout', 'connect_error', 'dns_error', 'tls_error',
        'protocol_error', 'blocked_address')),
    flags             text[], -- NULL: none
    attempted_at      timestamptz NOT NULL,
    latency_seconds   real        NOT NULL,
    dns_seconds       real,
    connect_seconds   real,
    wait_seconds      real,
    read_seconds      real,
    reused            boolean     NOT NULL, -- the connection had served an earlier request
    peer              text,
    url               text        NOT NULL,
    response_code     smallint,
    response_body     bytea,
    error             text,
    PRIMARY KEY (day, delivery_id, attempt_number),
    CONSTRAINT attempt_ok CHECK (outcome <> 'ok' OR response_code BETWEEN 200 AND 299)
) PARTITION BY RANGE (day);

-- What a person asked of a delivery and its dispatcher has not seen yet: one more attempt, or (the row being
-- cancelled already) to forget what it holds in memory. One row a delivery and kind: requests that wait are one.
CREATE TABLE dispatcher.delivery_request (
    delivery_id   text        COLLATE "C" NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('resend', 'cancel')),
    day           date        NOT NULL,
    endpoint_id   text        COLLATE "C" NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by  text        NOT NULL,
    PRIMARY KEY (delivery_id, kind)
);

CREATE TABLE dispatcher.routing (
    singleton     boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    version       bigint      NOT NULL DEFAULT 1
);
INSERT INTO dispatcher.routing DEFAULT VALUES;

CREATE TABLE dispatcher.endpoint (
    id                      text        COLLATE "C" NOT NULL PRIMARY KEY,
    tenant                  text        COLLATE "C" NOT NULL,
    name                    text        NOT NULL,
    url                     text        NOT NULL,
    profile                 text        COLLATE "C" NOT NULL,
    event_types             text[]      NOT NULL CHECK (cardinality(event_types) > 0),
    labels                  jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
    headers                 jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
    ca_pem                  text,
    max_concurrency         integer     CHECK (max_concurrency BETWEEN 1 AND 1000),
    rate_limit              double precision CHECK (rate_limit > 0),
    timeout_seconds         double precision CHECK (timeout_seconds > 0),
    retry_schedule_seconds  double precision[],
    ordering                text        NOT NULL DEFAULT 'none' CHECK (ordering = 'none'),
    state                   text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'disabled')),
    reason                  text,
    paused_at               timestamptz,
    shard                   smallint    NOT NULL CHECK (shard BETWEEN 0 AND 63),
    created_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at              timestamptz,
    CONSTRAINT endpoint_paused CHECK ((state = 'paused') = (paused_at IS NOT NULL)),
    CONSTRAINT endpoint_disabled CHECK (state <> 'disabled' OR reason IS NOT NULL)
);
CREATE UNIQUE INDEX endpoint_name ON dispatcher.endpoint (tenant, name) WHERE deleted_at IS NULL;

-- Sealed with AES-256-GCM; the row's id, the endpoint and the key's id are authenticated with it.
CREATE TABLE dispatcher.endpoint_secret (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id   text        COLLATE "C" NOT NULL REFERENCES dispatcher.endpoint (id),
    role          text        NOT NULL CHECK (role IN ('current', 'previous', 'staged')),
    key_id        text        NOT NULL,
    sealed        bytea       NOT NULL, -- nonce, ciphertext, tag
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz,
    CONSTRAINT endpoint_secret_expiry CHECK ((role = 'previous') = (expires_at IS NOT NULL))
);
CREATE UNIQUE INDEX endpoint_secret_one ON dispatcher.endpoint_secret (endpoint_id, role) WHERE role <> 'previous';
CREATE INDEX endpoint_secret_of ON dispatcher.endpoint_secret (endpoint_id);

-- Failing since when: a row only while an endpoint fails.
CREATE TABLE dispatcher.endpoint_health (
    endpoint_id      text        COLLATE "C" NOT NULL PRIMARY KEY REFERENCES dispatcher.endpoint (id),
    first_failure_at timestamptz NOT NULL,
    failed_attempts  bigint      NOT NULL,
    warned_percent   smallint    NOT NULL DEFAULT 0
);

-- Any change of an endpoint or a secret, by whatever hand, is seen by the next fan-out.
CREATE FUNCTION dispatcher.routing_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE dispatcher.routing SET version = version + 1;
    NOTIFY dispatcher_control;
    RETURN NULL;
END $$;
CREATE TRIGGER endpoint_changed AFTER INSERT OR UPDATE OR DELETE ON dispatcher.endpoint
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.routing_changed();
CREATE TRIGGER endpoint_secret_changed AFTER INSERT OR UPDATE OR DELETE ON dispatcher.endpoint_secret
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.routing_changed();

CREATE TABLE dispatcher.replica (
    incarnation   text        COLLATE "C" NOT NULL PRIMARY KEY,
    name          text        NOT NULL,
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    renewed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL
) WITH (fillfactor = 50);

-- token changes when a shard changes hands, and only then: a result written under an old one is refused.
CREATE TABLE dispatcher.shard (
    shard         smallint    NOT NULL PRIMARY KEY,
    owner         text        COLLATE "C",
    token         bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO dispatcher.shard (shard) SELECT generate_series(0, 63);

CREATE TABLE dispatcher.audit (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text        NOT NULL,
    tenant        text        NOT NULL,
    action        text        NOT NULL,
    object        text        NOT NULL,
    detail        jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_newest ON dispatcher.audit (at, id);

-- Makes the partitions from yesterday to `days_ahead` days from now; returns how many it made.
-- CREATE TABLE LIKE + ATTACH holds no lock that readers or writers of the parent wait for.
CREATE FUNCTION dispatcher.make_partitions(days_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    part text;
    made integer := 0;
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    FOREACH parent IN ARRAY ARRAY['event', 'body', 'delivery_done', 'attempt'] LOOP
        FOR day IN SELECT generate_series(today - 1, today + days_ahead, interval '1 day')::date LOOP
            part := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass('dispatcher.' || part) IS NOT NULL;
            EXECUTE format('CREATE TABLE dispatcher.%I (LIKE dispatcher.%I INCLUDING ALL)', part, parent);
            EXECUTE format('ALTER TABLE dispatcher.%I ATTACH PARTITION dispatcher.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, part, day, day + 1);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT dispatcher.make_partitions(7);
