-- Who may ask: bearer tokens, and the sessions that people sign in to with one.
--
-- Of a token and of a session only the SHA-256 is kept: both are 256 random bits, so nothing slower is needed,
-- and whoever reads the table can use neither.

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

-- What an admin of one tenant may read. What concerns all tenants stands under `*`.
CREATE INDEX audit_of_tenant ON dispatcher.audit (tenant, at, id);
