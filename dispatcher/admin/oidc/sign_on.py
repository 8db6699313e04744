"""Signs people in through the provider: starts a flow, completes it, and opens the session."""

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import structlog

from dispatcher.admin.auth import Auth, Grant, SignedIn
from dispatcher.admin.oidc.errors import SignOnError
from dispatcher.admin.oidc.flow import Flow, read_flow, start_flow
from dispatcher.admin.oidc.id_token import Expected, Identity, verify_id_token
from dispatcher.admin.oidc.provider import SECONDS_MAX, Provider
from dispatcher.admin.oidc.rules import Rights, digest_of_rules, groups_of, rights_of
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.rate_limits import Buckets
from dispatcher.core import ids
from dispatcher.core.errors import TooManyError
from dispatcher.core.problems import problem
from dispatcher.outbound.documents import DocumentClient
from dispatcher.store.sessions import sign_in_person, take_state

_log = structlog.get_logger("dispatcher.admin.oidc")

CALLBACK_PATH: Final = "sign-in/callback"
SIGN_INS_BURST: Final = 20
SIGN_INS_PER_SECOND: Final = 0.5
_CODE_CHARACTERS_MAX: Final = 4_096
_Result = TypeVar("_Result")


class Start(NamedTuple):
    """The start of a sign-in: where the browser goes, and the cookie that it keeps."""

    url: str
    cookie: str


class Completed(NamedTuple):
    """A completed sign-in: its session, and the path to return to."""

    session: SignedIn
    next_path: str


class SignOn:
    """Single sign-on of one process; on its event loop."""

    def __init__(self, deployment: Deployment, auth: Auth, documents: DocumentClient) -> None:
        settings = deployment.settings
        secret = settings.oidc_client_secret
        self._deployment = deployment
        self._auth = auth
        self._settings = settings.oidc
        self._clock = deployment.clock
        self._redirect_uri = settings.console_url() + CALLBACK_PATH
        self._rules = digest_of_rules(self._settings)
        self._provider = Provider(
            self._settings,
            None if secret is None else secret.get_secret_value(),
            documents,
            self._clock,
        )
        self._starts, self._returns = (
            Buckets(SIGN_INS_PER_SECOND, SIGN_INS_BURST, monotonic=self._clock.monotonic)
            for _ in range(2)
        )
        auth.rules = self._rules

    @classmethod
    def of(cls, deployment: Deployment, auth: Auth, documents: DocumentClient) -> "SignOn | None":
        """Return single sign-on; None if no provider is configured."""
        return cls(deployment, auth, documents) if deployment.settings.oidc.issuer else None

    @property
    def name(self) -> str:
        """The provider's name on the sign-in page; empty if it has none."""
        return self._settings.name

    async def start(self, next_path: str, address: str) -> Start:
        """Start a sign-in that returns to a path of the console.

        Raises:
            SignOnError: the provider cannot be used.
            TooManyError: too many sign-ins were started from this address.
        """
        _take(self._starts, address)
        metadata = await self._bounded(self._provider.metadata())
        flow = start_flow(self._clock.now().timestamp(), next_path)
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._settings.client_id,
                "redirect_uri": self._redirect_uri,
                "scope": " ".join(self._settings.scopes),
                "state": flow.state,
                "nonce": flow.nonce,
                "code_challenge": flow.challenge,
                "code_challenge_method": "S256",
            }
        )
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return Start(f"{metadata.authorization_endpoint}{joint}{query}", flow.cookie)

    async def complete(
        self, *, cookie: str | None, state: str, code: str | None, address: str
    ) -> Completed:
        """Complete a sign-in and open its session; without a code the provider has denied it.

        Raises:
            SignOnError: the sign-in is not valid, or the person has no rights.
            TooManyError: too many sign-ins were completed from this address.
            StoreUnavailableError: the session cannot be opened now.
        """
        _take(self._returns, address)
        try:
            return await self._complete(cookie, state, code, address)
        except SignOnError as error:
            _log.warning("oidc.rejected", reason=error.reason, error=str(error), address=address)
            raise

    async def _complete(
        self, cookie: str | None, state: str, code: str | None, address: str
    ) -> Completed:
        flow = None
        if cookie is not None:
            flow = read_flow(cookie, state, self._clock.now().timestamp())
        if flow is None:
            raise SignOnError("state", "the state is of another browser, or too old")
        if code is None or len(code) > _CODE_CHARACTERS_MAX:
            raise SignOnError("denied", "the provider returned an error and no code")
        identity = await self._bounded(self._identity(flow, code))
        groups = groups_of(identity.claims, self._settings.groups_claim)
        rights = rights_of(groups, self._settings.roles)
        if rights is None:
            raise SignOnError("no_role", f"no rule for the groups of {identity.subject!r}")
        session = await self._open(flow, identity, rights, address)
        return Completed(session, flow.next_path)

    async def _identity(self, flow: Flow, code: str) -> Identity:
        token = await self._provider.exchange(code, flow.verifier, self._redirect_uri)
        key = await self._provider.key_of(token)
        now_s = self._clock.now().timestamp()
        expected = Expected(self._settings.issuer, self._settings.client_id, flow.nonce, now_s)
        return verify_id_token(token, key, expected)

    async def _open(self, flow: Flow, identity: Identity, rights: Rights, address: str) -> SignedIn:
        """Record the state, the person and the session in one transaction."""
        issuer, subject = self._settings.issuer, identity.subject
        unix_ms = int(self._clock.now().timestamp() * 1000)
        new_id = ids.new_id(ids.PERSON_PREFIX, unix_ms, secrets.token_bytes(ids.RANDOMNESS_BYTES))
        role, tenant = rights
        async with self._deployment.database.transaction() as connection:
            if not await take_state(connection, digest_of(flow.state)):
                raise SignOnError("state", "the state was used before")
            person_id = await sign_in_person(
                connection, [new_id, issuer, subject, identity.name, role, tenant]
            )
            # The subject identifies the person permanently. A name can be changed, to another person's too.
            actor = Actor(name=f"oidc:{person_id}", tenant=tenant, role=role, label=identity.name)
            authority = digest_of(f"oidc\0{person_id}")
            seconds_max = self._settings.session_hours * 3_600
            grant = Grant("oidc", authority, actor, seconds_max, self._rules)
            return await self._auth.open(connection, grant, address)

    async def _bounded(self, work: Awaitable[_Result]) -> _Result:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return await work
        except TimeoutError:
            raise SignOnError("unavailable", f"no result within {SECONDS_MAX:.0f} s") from None


def _take(buckets: Buckets, address: str) -> None:
    wait = buckets.take(address)
    if wait:
        raise TooManyError(problem("sign_in", "too_many_sign_ins"), wait)
