"""Authenticates requests: resolves a bearer token or a session cookie to its actor.

A token is a row (its SHA-256) or the value of DISPATCHER_ADMIN_TOKEN, which is valid while it is set
and is never stored. People sign in to the console with a token, with a one-time link or through an
OpenID provider, and get a session: the cookie holds 256 random bits, the table their SHA-256. Invariants:

* A token is looked up for each request. Its revocation, its expiry and a new value of the variable
  take effect immediately, also for the sessions that were opened with it.
* A session of a link or of the provider has the role and the tenant that were granted when it was opened.
  A session of the provider ends with the settings that granted it (`rules`): a changed mapping of groups,
  issuer or client id ends all of them.
* A session ends `SESSION_IDLE_SECONDS_MAX` after its last use, and at the latest after the bound of its
  source: `SESSION_SECONDS_MAX`, `LINK_SESSION_SECONDS_MAX`, or `oidc.session_hours`.
* A link opens one session. It is used up by a POST only, so that the preview of a chat program, which
  requests the address, does not use it up. It expires `LINK_SECONDS` after its creation.
* A publish may be accepted with a token that was valid up to `RECENT_SECONDS` ago, because its transaction
  verifies the token again (`recent_actor`): an event is committed only with a token that is valid then.
* Tokens are compared as SHA-256 digests, by the index or by `compare_digest`, so that the time of a
  comparison reveals nothing about a token.
* Wrong tokens are counted by address. Over the limit, a token is compared with the digests of all
  living tokens. These are read once per `LIVING_SECONDS`, so that a guess does not cost a statement. A
  valid token passes even if this process has not seen it before, so that a client behind a shared
  address cannot lock out its neighbours. Wrong links are counted separately.
* `last_used_at` is written in the background (`run`). A crash loses some seconds of it.

While Postgres is unavailable, only the holder of DISPATCHER_ADMIN_TOKEN can be authenticated. Others get
StoreUnavailableError, after a bounded time.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from dispatcher.admin.operations.access import (
    LINK_CODE_CHARACTERS_MAX,
    SESSION_IDLE_SECONDS_MAX,
)
from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.tokens import actor_name, digest_of
from dispatcher.admin.rate_limits import Buckets
from dispatcher.core import ids
from dispatcher.core.errors import StoreUnavailableError, TooManyError
from dispatcher.core.problems import problem
from dispatcher.runtime.backoff import Outage
from dispatcher.store.audit import write_audit
from dispatcher.store.sessions import (
    LivingSession,
    NewSession,
    Sessions,
    forget_session,
    open_session,
    take_link,
)
from dispatcher.store.tokens import Credentials, LivingToken

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.admin.auth")

ADMIN_TOKEN_ACTOR: Final = "admin-token"  # noqa: S105 -- a name, not a token
SESSION_BYTES: Final = 32
SESSION_SECONDS_MAX: Final = 7 * 86_400.0
LINK_SESSION_SECONDS_MAX: Final = 86_400.0
SESSIONS_MAX: Final = 100
"""Sessions of one token or person; one more ends the least recently used one."""
TEXT_CHARACTERS_MAX: Final = 512
WRONG_BURST: Final = 10
WRONG_PER_SECOND: Final = 0.2
KNOWN_MAX: Final = 10_000
RECENT_SECONDS: Final = 60.0
LIVING_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 10.0
SWEEP_SECONDS: Final = 3_600.0
STATE_SECONDS: Final = 3_600.0
"""How long used states of the provider's sign-ins are kept; longer than a sign-in may take."""


class Grant(NamedTuple):
    """The rights of a new session, and their source."""

    source: str
    authority: bytes
    """SHA-256 of the token or of the person; the number of its sessions is bounded."""
    actor: Actor
    seconds_max: float
    rules: bytes | None = None


class SignedIn(NamedTuple):
    """A new session: the value of its cookie, its lifetime and its actor."""

    cookie: str
    seconds_max: float
    actor: Actor


class SessionActor(NamedTuple):
    """The actor of a session, and the CSRF token that each of its forms must carry."""

    actor: Actor
    csrf_token: str


class Auth:
    """Authenticates tokens and sessions; one for all routes of a process, on the event loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._credentials = Credentials(deployment.database)
        self._sessions = Sessions(deployment.database)
        self.rules: bytes | None = None
        """Digest of the single sign-on settings in force; sessions that other settings granted have ended."""
        token = deployment.settings.admin_token
        self._admin_digest = None if token is None else digest_of(token.get_secret_value())
        self._wrong = Buckets(WRONG_PER_SECOND, WRONG_BURST, monotonic=deployment.clock.monotonic)
        self._wrong_links = Buckets(
            WRONG_PER_SECOND, WRONG_BURST, monotonic=deployment.clock.monotonic
        )
        self._known: OrderedDict[bytes, None] = OrderedDict()
        """Digests that were valid recently. They skip the limit; they are not authenticated by it."""
        self._recent: OrderedDict[bytes, tuple[float, Actor]] = OrderedDict()
        """When a token was last looked up, and its actor."""
        self._living: frozenset[bytes] = frozenset()
        """Digests of all living tokens at `_living_at`, read while an address is over its limit."""
        self._living_at = float("-inf")
        self._loading = asyncio.Lock()
        self._tokens_used: dict[bytes, datetime] = {}
        self._sessions_used: dict[bytes, datetime] = {}
        self._swept_at = float("-inf")
        self._outage = Outage(_log, "credentials.stalled", "credentials.resumed")

    async def actor_of(self, text: str, address: str) -> Actor | None:
        """Return the actor of a token; None if the token is unknown or has ended.

        Raises:
            TooManyError: too many wrong tokens came from this address.
            StoreUnavailableError: the token cannot be looked up now.
        """
        if len(text) > TEXT_CHARACTERS_MAX:
            return None
        digest = digest_of(text)
        actor = await self._find(digest, address)
        if actor is None:
            self._recent.pop(digest, None)
        elif digest != self._admin_digest:
            self._tokens_used[digest] = self._deployment.clock.now()
            self._recent[digest] = (self._deployment.clock.monotonic(), actor)
            self._recent.move_to_end(digest)
            if len(self._recent) > KNOWN_MAX:
                self._recent.popitem(last=False)
        return actor

    def recent_actor(self, text: str) -> tuple[Actor, bytes | None] | None:
        """Return the actor of a token that was valid recently, and the SHA-256 that is to be verified.

        There is none to verify for the admin token, which is compared at once. None: the token must be
        looked up.
        """
        if len(text) > TEXT_CHARACTERS_MAX:
            return None
        digest = digest_of(text)
        if self._is_admins(digest):
            return _admin(), None
        found = self._recent.get(digest)
        if found is None or self._deployment.clock.monotonic() - found[0] > RECENT_SECONDS:
            return None
        self._tokens_used[digest] = self._deployment.clock.now()
        return found[1], digest

    async def sign_in(self, text: str, address: str) -> SignedIn | None:
        """Open a session with a token; return None if the token is unknown or has ended.

        Raises:
            TooManyError, StoreUnavailableError: as `actor_of`.
        """
        actor = await self.actor_of(text, address)
        if actor is None or actor.endpoint_id is not None:
            return None
        async with self._deployment.database.transaction() as connection:
            grant = Grant("token", digest_of(text), actor, SESSION_SECONDS_MAX)
            return await self.open(connection, grant, address)

    async def sign_in_by_link(self, code: str, address: str) -> SignedIn | None:
        """Use a sign-in link up and open its session; None if it is unknown, used or expired.

        Raises:
            TooManyError: too many wrong links came from this address.
            StoreUnavailableError: the link cannot be looked up now; it is not used up.
        """
        wait = self._wrong_links.wait_seconds(address)
        if wait:
            raise TooManyError(problem("link", "too_many_wrong_links"), wait)
        if len(code) <= LINK_CODE_CHARACTERS_MAX:
            async with self._deployment.database.transaction() as connection:
                link = await take_link(connection, digest_of(code))
                if link is not None:
                    actor = Actor(
                        name=f"link:{link.created_by}", tenant=link.tenant, role=Role(link.role)
                    )
                    authority = digest_of(f"link\0{link.created_by}")
                    grant = Grant("link", authority, actor, LINK_SESSION_SECONDS_MAX)
                    return await self.open(connection, grant, address)
        self._wrong_links.take(address)
        _log.warning("link.rejected", address=address)
        return None

    async def open(self, connection: "Reach", grant: Grant, address: str) -> SignedIn:
        """Open a session in the caller's transaction."""
        cookie = base64.urlsafe_b64encode(secrets.token_bytes(SESSION_BYTES)).decode().rstrip("=")
        unix_ms = int(self._deployment.clock.now().timestamp() * 1000)
        actor = grant.actor
        await open_session(
            connection,
            NewSession(
                digest=digest_of(cookie),
                id=ids.new_id(
                    ids.SESSION_PREFIX, unix_ms, secrets.token_bytes(ids.RANDOMNESS_BYTES)
                ),
                source=grant.source,
                authority=grant.authority,
                rules=grant.rules,
                actor=actor.name,
                label=actor.label,
                role=str(actor.role),
                tenant=actor.tenant,
                address=address,
            ),
            seconds_max=grant.seconds_max,
            sessions_max=SESSIONS_MAX,
        )
        await write_audit(
            connection,
            actor.name,
            actor.tenant or ALL_TENANTS,
            "session.open",
            actor.name,
            {
                "from": address,
                "by": grant.source,
                **({} if actor.label is None else {"name": actor.label}),
            },
        )
        return SignedIn(cookie, grant.seconds_max, actor)

    async def actor_of_session(self, cookie: str) -> SessionActor | None:
        """Return the actor and the CSRF token of a session; None if it has ended or never existed.

        Raises:
            StoreUnavailableError: the session cannot be looked up now.
        """
        if len(cookie) > TEXT_CHARACTERS_MAX:
            return None
        digest = digest_of(cookie)
        session = await self._sessions.find(digest, SESSION_IDLE_SECONDS_MAX)
        actor = None if session is None else self._actor_of(session)
        if actor is None:
            return None
        self.session_used(digest)
        return SessionActor(actor, csrf_token_of(cookie))

    def _actor_of(self, session: LivingSession) -> Actor | None:
        """Return the actor of a session; None if the authority that it was opened with has ended."""
        match session.source:
            case "token" if self._is_admins(session.authority):
                return _admin()
            case "token" if session.token is not None:
                self._tokens_used[session.authority] = self._deployment.clock.now()
                return _actor(session.token)
            case "link":
                return _granted(session)
            case "oidc" if self.rules is not None and session.rules == self.rules:
                return _granted(session)
            case _:
                return None

    def session_used(self, digest: bytes) -> None:
        """Note that a session was used; `flush` records it."""
        self._sessions_used[digest] = self._deployment.clock.now()

    async def sign_out(self, cookie: str, actor: Actor) -> None:
        """End a session."""
        async with self._deployment.database.transaction() as connection:
            await forget_session(connection, digest_of(cookie))
            await write_audit(
                connection, actor.name, actor.tenant or ALL_TENANTS, "session.close", actor.name, {}
            )

    async def run(self) -> None:
        """Record when tokens and sessions were used, and delete ended sessions, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
                self._outage.ended()
            except StoreUnavailableError as error:
                self._outage.began(error)

    async def flush(self) -> None:
        """Record the uses since the last flush.

        Raises:
            StoreUnavailableError: some uses are not recorded; they are kept for the next flush.
        """
        if self._tokens_used:
            used = dict(self._tokens_used)
            await self._credentials.tokens_used(used)
            _take_out(self._tokens_used, used)
        if self._sessions_used:
            used = dict(self._sessions_used)
            await self._sessions.used(used)
            _take_out(self._sessions_used, used)
        now = self._deployment.clock.monotonic()
        if now - self._swept_at >= SWEEP_SECONDS:
            await self._sessions.sweep(SESSION_IDLE_SECONDS_MAX, STATE_SECONDS)
            self._swept_at = now

    async def _find(self, digest: bytes, address: str) -> Actor | None:
        if self._is_admins(digest):
            return _admin()
        wait = 0.0 if digest in self._known else self._wrong.wait_seconds(address)
        if wait and not await self._is_living(digest):
            raise TooManyError(problem("token", "too_many_wrong_tokens"), wait)
        token = await self._credentials.find_token(digest)
        if token is None:
            self._known.pop(digest, None)
            self._wrong.take(address)
            _log.warning("token.rejected", address=address)
            return None
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return _actor(token)

    async def _is_living(self, digest: bytes) -> bool:
        """Return whether a digest is a living token's, as of at most `LIVING_SECONDS` ago.

        All digests are read together. Guesses therefore cost one statement per `LIVING_SECONDS`, and valid
        tokens from the same address are accepted, also after a restart.
        """
        async with self._loading:
            now = self._deployment.clock.monotonic()
            if now - self._living_at >= LIVING_SECONDS:
                self._living = await self._credentials.living_digests(KNOWN_MAX)
                self._living_at = now
        return digest in self._living

    def _is_admins(self, digest: bytes) -> bool:
        return self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest)


def csrf_token_of(cookie: str) -> str:
    """Return the CSRF token of a session: a digest of the cookie, which cannot be derived from it."""
    return hashlib.sha256(b"csrf\0" + cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _actor(token: LivingToken) -> Actor:
    return Actor(
        name=actor_name(token.name, token.tenant),
        tenant=token.tenant,
        role=Role(token.role),
        endpoint_id=token.endpoint_id,
    )


def _granted(session: LivingSession) -> Actor:
    return Actor(
        name=session.actor, tenant=session.tenant, role=Role(session.role), label=session.label
    )


def _admin() -> Actor:
    return Actor(name=ADMIN_TOKEN_ACTOR)


def _take_out(pending: dict[bytes, datetime], written: dict[bytes, datetime]) -> None:
    """Remove the written entries from `pending`, except those that were used again meanwhile."""
    for digest, at in written.items():
        if pending.get(digest) == at:
            del pending[digest]
