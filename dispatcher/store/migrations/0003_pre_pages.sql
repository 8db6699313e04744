-- What pages and commands read beside the rows themselves: counted traffic, open breakers, each replica's figures.
--
--   traffic           one row an hour and subject (an endpoint, a tenant, all): attempts by how they ended, their
--                     latencies, deliveries that ended; statistics, filled by each replica every few seconds
--   endpoint_breaker  hot: the breakers that are not closed, as the replica that holds the endpoint sees them
--   replica_figures   hot: what each replica has in memory, for the page about the system
--
-- None of them decides anything: a crash loses the seconds of counts that were not written yet, never a delivery.

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

-- Pages by index. The trailing columns are there for filters: they are compared within the index, so that a rare type,
-- state or tenant is found among a million deliveries by reading the index alone (0.1 µs an entry), and wider indexes
-- cost deliveries less than more of them (docs/adr says how much).
DROP INDEX dispatcher.delivery_done_newest, dispatcher.delivery_done_by_endpoint, dispatcher.delivery_done_unsuccessful;
CREATE INDEX delivery_done_newest ON dispatcher.delivery_done (created_at, id, tenant, event_type, state);
CREATE INDEX delivery_done_by_endpoint ON dispatcher.delivery_done (endpoint_id, created_at, id, event_type, state);
CREATE INDEX delivery_done_unsuccessful ON dispatcher.delivery_done (created_at, id, tenant, event_type, state)
    WHERE state <> 'succeeded';
CREATE INDEX delivery_done_tests ON dispatcher.delivery_done (created_at, id) WHERE test;

-- A backlog of a million is looked at newest first too.
CREATE INDEX delivery_open_newest ON dispatcher.delivery_open (created_at, id, tenant, event_type, endpoint_id);

DROP INDEX dispatcher.event_newest;
CREATE INDEX event_newest ON dispatcher.event (accepted_at, id, tenant, type);
-- By `name=value` and by a bare value; events without labels are not in it and cost nothing. What waits to be merged
-- into it is read by every search, so it is kept short.
CREATE INDEX event_labels ON dispatcher.event USING gin (labels) WITH (gin_pending_list_limit = 1024)
    WHERE labels <> '{}';

-- By the digits of a request id, for profiles that may have one: the shipped ones that have none are not in it.
CREATE INDEX body_request ON dispatcher.body ((substring(sha256(event_id::bytea) FOR 8)))
    WHERE profile NOT IN ('standard', 'wms', 'github', 'stripe');
