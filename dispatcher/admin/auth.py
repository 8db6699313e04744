"""Authenticates requests: resolves a bearer token or a session cookie to its actor.

A token is a row (its SHA-256) or the value of DISPATCHER_ADMIN_TOKEN, which is valid while it is set
and is never stored. People sign in to the console with a token and get a session: the cookie holds 256
random bits, the table their SHA-256. Invariants:

* A token is looked up for each request. Its revocation, its expiry and a new value of the variable
  take effect immediately, also for the sessions that were opened with it.
* A session ends `SESSION_IDLE_SECONDS_MAX` after its last use, and at the latest `SESSION_SECONDS_MAX`
  after it was opened.
* Tokens are compared as SHA-256 digests, by the index or by `compare_digest`, so that the time of a
  comparison reveals nothing about a token.
* Wrong tokens are counted by address. Over the limit, a token is compared with the digests of all
  living tokens. These are read once per `LIVING_SECONDS`, so that a guess does not cost a statement. A
  valid token passes even if this process has not seen it before, so that a client behind a shared
  address cannot lock out its neighbours.
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
from typing import Final, NamedTuple

import structlog

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.tokens import actor_name, digest_of
from dispatcher.admin.rate_limits import Buckets
from dispatcher.core.errors import StoreUnavailableError, TooManyError
from dispatcher.core.problems import problem
from dispatcher.runtime.backoff import Outage
from dispatcher.store.audit import write_audit
from dispatcher.store.tokens import Credentials, LivingToken

_log = structlog.get_logger("dispatcher.admin.auth")

ADMIN_TOKEN_ACTOR: Final = "admin-token"  # noqa: S105 -- a name, not a token
SESSION_BYTES: Final = 32
SESSION_SECONDS_MAX: Final = 7 * 86_400.0
SESSION_IDLE_SECONDS_MAX: Final = 12 * 3_600.0
SESSIONS_MAX: Final = 100
"""Sessions of one token; one more ends the least recently used one."""
TEXT_CHARACTERS_MAX: Final = 512
WRONG_BURST: Final = 10
WRONG_PER_SECOND: Final = 0.2
KNOWN_MAX: Final = 10_000
LIVING_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 10.0
SWEEP_SECONDS: Final = 3_600.0


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
        token = deployment.settings.admin_token
        self._admin_digest = None if token is None else digest_of(token.get_secret_value())
        self._wrong = Buckets(WRONG_PER_SECOND, WRONG_BURST, monotonic=deployment.clock.monotonic)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        """Digests that were valid recently. They skip the limit; they are not authenticated by it."""
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
        if actor is not None and digest != self._admin_digest:
            self._tokens_used[digest] = self._deployment.clock.now()
        return actor

    async def sign_in(self, text: str, address: str) -> SignedIn | None:
        """Open a session with a token; return None if the token is unknown or has ended.

        Raises:
            TooManyError, StoreUnavailableError: as `actor_of`.
        """
        actor = await self.actor_of(text, address)
        if actor is None:
            return None
        cookie = base64.urlsafe_b64encode(secrets.token_bytes(SESSION_BYTES)).decode().rstrip("=")
        async with self._deployment.database.transaction() as connection:
            await self._credentials.open_session(
                connection,
                digest_of(cookie),
                digest_of(text),
                seconds_max=SESSION_SECONDS_MAX,
                sessions_max=SESSIONS_MAX,
            )
            await write_audit(
                connection,
                actor.name,
                actor.tenant or ALL_TENANTS,
                "session.open",
                actor.name,
                {"from": address},
            )
        return SignedIn(cookie, SESSION_SECONDS_MAX, actor)

    async def actor_of_session(self, cookie: str) -> SessionActor | None:
        """Return the actor and the CSRF token of a session; None if it has ended or never existed.

        Raises:
            StoreUnavailableError: the session cannot be looked up now.
        """
        if len(cookie) > TEXT_CHARACTERS_MAX:
            return None
        digest = digest_of(cookie)
        session = await self._credentials.find_session(digest, SESSION_IDLE_SECONDS_MAX)
        if session is None:
            return None
        if self._is_admins(session.token_hash):
            actor = _admin()
        elif session.token is not None:
            actor = _actor(session.token)
            self._tokens_used[session.token_hash] = self._deployment.clock.now()
        else:
            return None
        self._sessions_used[digest] = self._deployment.clock.now()
        return SessionActor(actor, csrf_token_of(cookie))

    async def sign_out(self, cookie: str, actor: Actor) -> None:
        """End a session."""
        async with self._deployment.database.transaction() as connection:
            await self._credentials.forget_session(connection, digest_of(cookie))
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
            await self._credentials.sessions_used(used)
            _take_out(self._sessions_used, used)
        now = self._deployment.clock.monotonic()
        if now - self._swept_at >= SWEEP_SECONDS:
            await self._credentials.sweep(SESSION_IDLE_SECONDS_MAX)
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
        name=actor_name(token.name, token.tenant), tenant=token.tenant, role=Role(token.role)
    )


def _admin() -> Actor:
    return Actor(name=ADMIN_TOKEN_ACTOR)


def _take_out(pending: dict[bytes, datetime], written: dict[bytes, datetime]) -> None:
    """Remove the written entries from `pending`, except those that were used again meanwhile."""
    for digest, at in written.items():
        if pending.get(digest) == at:
            del pending[digest]
