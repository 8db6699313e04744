"""Access tokens of one endpoint by the OAuth grant of client credentials: cached, refreshed, fetched once at a time.

    an attempt ── current() ── token ──▶ sent with it
                     └─ none ── fetch() ──▶ one request to the token endpoint, for all attempts that wait

Invariants. The request takes the egress guard of deliveries: the name is resolved, each address is checked, no redirect
is followed, and it ends within the bound of `DocumentClient`. At most one request is under way. A token is refreshed in
the background before it expires, so that deliveries do not wait for it. After a failure, attempts of the next
`FAILED_SECONDS` get the same failure at once. A token that the receiver rejects with 401 is not used again. Tokens are
in memory only.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from dispatcher.core.credentials import AccessGranted, OAuthGrant, read_token
from dispatcher.outbound.documents import DocumentClient, DocumentError

FAILED_SECONDS: Final = 1.0
MARGIN_SHARE: Final = 0.1
MARGIN_SECONDS_MAX: Final = 30.0
"""A token is refreshed twice this long before it expires, and not used in the last one."""


class AccessTokens:
    """The token of one endpoint; used on one event loop."""

    def __init__(
        self,
        grant: OAuthGrant,
        documents: DocumentClient,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        monotonic: Callable[[], float],
    ) -> None:
        self._grant = grant
        self._documents = documents
        self._spawn = spawn
        self._monotonic = monotonic
        self._token: str | None = None
        self._usable_until = self._fresh_until = float("-inf")
        self._failure = ""
        self._failed_until = float("-inf")
        self._fetching: asyncio.Future[AccessGranted | str] | None = None
        self.requests_count = 0

    def current(self) -> str | None:
        """Return the token if it can be used now; near its end a new one is requested meanwhile."""
        now = self._monotonic()
        if self._token is None or now >= self._usable_until:
            return None
        if now >= self._fresh_until and now >= self._failed_until:
            self._begin()
        return self._token

    async def fetch(self) -> AccessGranted | str:
        """Return a new token, or why there is none; concurrent callers share one request."""
        if self._monotonic() < self._failed_until:
            return self._failure
        return await asyncio.shield(self._begin())

    def reject(self, token: str) -> None:
        """Forget a token that the receiver did not accept, unless there is a newer one."""
        if token == self._token:
            self._token = None

    def _begin(self) -> asyncio.Future[AccessGranted | str]:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_future()
            self._spawn(self._request(self._fetching))
        return self._fetching

    async def _request(self, fetching: asyncio.Future[AccessGranted | str]) -> None:
        result: AccessGranted | str = "the request for a token was cancelled"
        try:
            self.requests_count += 1
            result = await self._exchange()
        finally:
            self._fetching = None
            self._keep(result)
            if not fetching.done():
                fetching.set_result(result)

    async def _exchange(self) -> AccessGranted | str:
        grant = self._grant
        headers = {"Authorization": grant.authorization()}
        try:
            answer = await self._documents.post(grant.token_url, grant.form(), headers)
        except DocumentError as error:
            return f"the token endpoint cannot be used: {error}"
        return read_token(answer.status, answer.body)

    def _keep(self, result: AccessGranted | str) -> None:
        now = self._monotonic()
        if isinstance(result, str):
            self._failure, self._failed_until = result, now + FAILED_SECONDS
            return
        margin = min(MARGIN_SECONDS_MAX, result.lifetime_seconds * MARGIN_SHARE)
        self._token = result.token
        self._usable_until = now + result.lifetime_seconds - margin
        self._fresh_until = self._usable_until - margin
