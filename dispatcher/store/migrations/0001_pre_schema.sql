-- The first schema: what producers insert into, what waits to be sent, and what became of it.
--
--   outbox            hot: committed events nobody has taken yet, and the ids producers gave (tombstones)
--   event, body       history, one partition a UTC day of acceptance: the facts and the bytes made of them
--   delivery_open     hot: deliveries that are pending or retrying; small, whatever the history's size
--   delivery_done     history, by day: deliveries that ended, each written once
--   delivery          the view over both: what people and the API mean by a delivery
--   attempt           history, by day: every HTTP request
--   delivery_request  hot: what people asked (resend, cancel) and has not been carried out yet
--   endpoint, endpoint_secret, endpoint_health, routing     which endpoint gets which events; version grows with changes
--   replica, shard    which replica sends for which endpoints, and the token that stops a replica that lost its shard
--   endpoint_breaker, replica_figures   hot: open breakers and figures in memory, for pages; they decide nothing
--   token, session, audit     who may use the API and the console, and what they did
--   traffic           statistics: one row per hour and subject
--
-- CHECKs hold the state machine: an open delivery has a due time and no end, an ended one the reverse.
-- A delivery is in one of the two tables, since it moves between them within one statement.
--
-- Producers run the trigger functions with their own rights and their own settings. Every function therefore pins
-- `search_path = pg_catalog, pg_temp`: pg_temp is named, and last, because a path that omits it searches it first.
-- Names outside pg_catalog are qualified. `migrate` sets the same path, so expressions that bind at creation
-- (defaults, CHECKs, index expressions, views) bind to pg_catalog as well.

-- ---------- Producers: the outbox, its ids, its wake-up call --------------------------------------------------------

-- Numbers events: never resets, orders the outbox, and makes the ids that producers leave out.
CREATE SEQUENCE dispatcher.event_number AS bigint;

CREATE FUNCTION dispatcher.labels_are_valid(labels jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
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
    operational   boolean     NOT NULL DEFAULT false, -- raised by the dispatcher; producers cannot write it
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT id_is_1_to_64_letters_digits_underscores_hyphens
        CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    CONSTRAINT type_is_lower_case_words_joined_by_dots_up_to_128
        CHECK (type ~ '^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$' AND length(type) <= 128),
    CONSTRAINT type_prefix_dispatcher_is_reserved
        CHECK (operational = (type LIKE 'dispatcher.%')),
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
CREATE FUNCTION dispatcher.outbox_make_id() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.id := 'evt_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY') || '_'
           || CASE WHEN NEW.position < 1000000 THEN lpad(NEW.position::text, 6, '0')
                   ELSE NEW.position::text END;
    RETURN NEW;
END $$;

CREATE FUNCTION dispatcher.outbox_refuse_reserved_id() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
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
CREATE FUNCTION dispatcher.outbox_notify() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One expression, no statement: PERFORM would start the executor for each row.
    IF (CASE WHEN pg_try_advisory_lock_shared(1684632432, 1)
             THEN NOT pg_advisory_unlock_shared(1684632432, 1)
             ELSE pg_notification_queue_usage() < 0.5 END) THEN
        NOTIFY dispatcher_outbox;
    END IF;
    RETURN NULL;
END $$;

-- ---------- History: events, bodies, deliveries, attempts -----------------------------------------------------------

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
    erased_at     timestamptz, -- when the data, the bodies and the stored responses were blanked on request
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
-- Pages are read by index. The trailing columns serve filters: they are compared within the index, so a rare type,
-- state or tenant is found among a million rows by reading the index alone (0.1 µs per entry). Wider indexes cost
-- deliveries less than more of them (ADR 15).
CREATE INDEX event_newest ON dispatcher.event (accepted_at, id, tenant, type);
-- By `name=value` and by a bare value; events without labels are not in it and cost nothing. Every search reads the
-- pending list, so the list is kept short.
CREATE INDEX event_labels ON dispatcher.event USING gin (labels) WITH (gin_pending_list_limit = 1024)
    WHERE labels <> '{}';

-- The bytes that go over the wire, made once at fan-out, one row an event and profile.
CREATE TABLE dispatcher.body (
    day           date        NOT NULL,
    event_id      text        COLLATE "C" NOT NULL,
    profile       text        COLLATE "C" NOT NULL,
    bytes         bytea       NOT NULL,
    PRIMARY KEY (day, event_id, profile)
) PARTITION BY RANGE (day);
-- By the digits of a request id, for profiles that may have one: the shipped ones that have none are not in it.
CREATE INDEX body_request ON dispatcher.body ((substring(sha256(event_id::bytea) FOR 8)))
    WHERE profile NOT IN ('standard', 'wms', 'github', 'stripe');

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
-- A backlog of a million is listed newest first too.
CREATE INDEX delivery_open_newest ON dispatcher.delivery_open (created_at, id, tenant, event_type, endpoint_id);

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
CREATE INDEX delivery_done_newest ON dispatcher.delivery_done (created_at, id, tenant, event_type, state);
CREATE INDEX delivery_done_by_endpoint ON dispatcher.delivery_done (endpoint_id, created_at, id, event_type, state);
-- The list of failed deliveries, which is read most: few rows among many, found without reading the many.
CREATE INDEX delivery_done_unsuccessful ON dispatcher.delivery_done (created_at, id, tenant, event_type, state)
    WHERE state <> 'succeeded';
CREATE INDEX delivery_done_tests ON dispatcher.delivery_done (created_at, id) WHERE test;

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

-- ---------- Endpoints: who gets what --------------------------------------------------------------------------------

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
CREATE FUNCTION dispatcher.routing_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE dispatcher.routing SET version = version + 1;
    NOTIFY dispatcher_control;
    RETURN NULL;
END $$;
CREATE TRIGGER endpoint_changed AFTER INSERT OR UPDATE OR DELETE ON dispatcher.endpoint
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.routing_changed();
CREATE TRIGGER endpoint_secret_changed AFTER INSERT OR UPDATE OR DELETE ON dispatcher.endpoint_secret
    FOR EACH STATEMENT EXECUTE FUNCTION dispatcher.routing_changed();

-- ---------- Replicas: who may send for whom -------------------------------------------------------------------------

CREATE TABLE dispatcher.replica (
    incarnation   text        COLLATE "C" NOT NULL PRIMARY KEY,
    name          text        NOT NULL,
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    renewed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL,
    key_ids       text[] -- the ids of the keys that it decrypts secrets with
) WITH (fillfactor = 50);

-- token changes when a shard changes hands, and only then: a result written under an old one is refused.
CREATE TABLE dispatcher.shard (
    shard         smallint    NOT NULL PRIMARY KEY,
    owner         text        COLLATE "C",
    token         bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO dispatcher.shard (shard) SELECT generate_series(0, 63);

CREATE TABLE dispatcher.endpoint_breaker (
    endpoint_id   text        COLLATE "C" NOT NULL PRIMARY KEY,
    incarnation   text        COLLATE "C" NOT NULL, -- the replica that saw it; of a dead one it means nothing
    state         text        NOT NULL CHECK (state IN ('open', 'half_open')),
    opened_at     timestamptz NOT NULL,
    probe_at      timestamptz
) WITH (fillfactor = 50);

CREATE TABLE dispatcher.replica_figures (
    incarnation   text        COLLATE "C" NOT NULL PRIMARY KEY,
    at            timestamptz NOT NULL,
    figures       jsonb       NOT NULL
) WITH (fillfactor = 50);

-- ---------- People: tokens, sessions, the audit log -----------------------------------------------------------------

-- Only the SHA-256 of a token and of a session is stored: both are 256 random bits, so a slower hash adds nothing,
-- and a reader of the table can use neither.
CREATE TABLE dispatcher.token (
    id            text        COLLATE "C" NOT NULL PRIMARY KEY,
    name          text        NOT NULL,
    prefix        text        NOT NULL, -- its first characters, by which people know it again
    hash          bytea       NOT NULL CHECK (octet_length(hash) = 32),
    role          text        NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    tenant        text        COLLATE "C", -- NULL: all tenants
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by    text        NOT NULL,
    expires_at    timestamptz, -- NULL: never
    last_used_at  timestamptz, -- to the minute
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX token_hash ON dispatcher.token (hash);
-- Making one twice is safe. A revoked token gives its name back.
CREATE UNIQUE INDEX token_name ON dispatcher.token (coalesce(tenant, ''), name) WHERE revoked_at IS NULL;

CREATE TABLE dispatcher.session (
    hash          bytea       NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    token_hash    bytea       NOT NULL, -- of the token it was opened with; that token's end is its end
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at       timestamptz NOT NULL DEFAULT clock_timestamp(), -- to some minutes
    ends_at       timestamptz NOT NULL
);
CREATE INDEX session_end ON dispatcher.session (ends_at);

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

-- What an admin of one tenant may read. What concerns all tenants stands under `*`.
CREATE INDEX audit_of_tenant ON dispatcher.audit (tenant, at, id);

-- ---------- Statistics ----------------------------------------------------------------------------------------------

-- Attempts by outcome and latency, and deliveries that ended; each replica adds to it every few seconds. A crash loses
-- the seconds of counts that were not written yet, never a delivery.
CREATE TABLE dispatcher.traffic (
    hour               timestamptz NOT NULL,
    subject            text        COLLATE "C" NOT NULL, -- an endpoint's id, `tenant/` and its name, or `all`
    ok_count           bigint      NOT NULL, -- attempts: 2xx
    refused_count      bigint      NOT NULL, -- another answer: http_error, gone, throttled
    timeout_count      bigint      NOT NULL,
    unreachable_count  bigint      NOT NULL, -- no answer: connect, dns, tls, protocol error, blocked address
    succeeded_count    bigint      NOT NULL, -- deliveries that ended so
    failed_count       bigint      NOT NULL,
    latency_counts     integer[]   NOT NULL, -- attempts by latency, up to the bounds of core/histogram.py
    last_attempt_at    timestamptz NOT NULL,
    last_outcome       text        NOT NULL,
    last_response_code smallint,
    last_error         text,
    PRIMARY KEY (hour, subject)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);

-- ---------- Upkeep: days of history come and go ---------------------------------------------------------------------

-- Drops one day of a history table, whole. Returns what became of it:
--   dropped
--   unfinished  deliveries of that day still wait: nothing undelivered is ever dropped
--   needed      the day's deliveries are still kept, and read what lies in this table
--   gone        there is none, another replica was first
--   busy        another replica is at it
-- The table's own lock comes before the partition's, as in every query, so that nobody waits in a circle. A detach
-- needs the strongest lock on the table; it is waited for 200 ms, which is also the longest that others wait
-- behind it, and the caller tries again. Under these locks the deliveries are looked at: what starts a delivery
-- of that day anew has to take it out of delivery_done first. Not CONCURRENTLY: that leaves a pending
-- state behind when it is cut off.
CREATE FUNCTION dispatcher.drop_day(parent text, day date) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = on AS $$
DECLARE
    suffix text := to_char(day, '_YYYYMMDD');
BEGIN
    IF parent NOT IN ('event', 'body', 'delivery_done', 'attempt') THEN
        RAISE EXCEPTION '% is not a table of history', parent;
    END IF;
    IF NOT pg_try_advisory_xact_lock(1684632432, 2) THEN
        RETURN 'busy';
    END IF;
    IF to_regclass('dispatcher.' || parent || suffix) IS NULL THEN
        RETURN 'gone';
    END IF;
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = drop_day.day) THEN
        RETURN 'unfinished';
    END IF;
    IF parent <> 'delivery_done' AND to_regclass('dispatcher.delivery_done' || suffix) IS NOT NULL THEN
        RETURN 'needed';
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('LOCK TABLE ONLY dispatcher.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE dispatcher.%I IN ACCESS EXCLUSIVE MODE', parent || suffix);
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = drop_day.day) THEN
        RETURN 'unfinished';
    END IF;
    EXECUTE format('ALTER TABLE dispatcher.%I DETACH PARTITION dispatcher.%I', parent, parent || suffix);
    EXECUTE format('DROP TABLE dispatcher.%I', parent || suffix);
    RETURN 'dropped';
END $$;

-- Empties one day of attempts whose deliveries are kept for longer: a resend must find a partition to write to.
-- Done once a day of history, remembered as the partition's comment: the attempts of a later resend stay.
-- Returns emptied, unfinished, gone or busy.
CREATE FUNCTION dispatcher.empty_attempts(day date) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = on AS $$
DECLARE
    part text := 'attempt' || to_char(day, '_YYYYMMDD');
BEGIN
    IF NOT pg_try_advisory_xact_lock(1684632432, 2) THEN
        RETURN 'busy';
    END IF;
    IF to_regclass('dispatcher.' || part) IS NULL
       OR obj_description(to_regclass('dispatcher.' || part), 'pg_class') = 'emptied' THEN
        RETURN 'gone';
    END IF;
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = empty_attempts.day) THEN
        RETURN 'unfinished';
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('TRUNCATE TABLE dispatcher.%I', part);
    EXECUTE format('COMMENT ON TABLE dispatcher.%I IS %L', part, 'emptied');
    RETURN 'emptied';
END $$;

-- Makes the partitions from yesterday to `days_ahead` days from now; returns how many it made.
-- CREATE TABLE LIKE + ATTACH holds no lock that readers or writers of the parent wait for.
CREATE FUNCTION dispatcher.make_partitions(days_ahead integer) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
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
