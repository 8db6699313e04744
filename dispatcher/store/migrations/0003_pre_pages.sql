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
