"""A receiver that verifies, records and misbehaves on request; used by `listen`, `dev` and tests.

Each path can have its own profile, secrets and behaviour; other paths use those of the receiver. Everything that it
keeps is bounded: the latest requests, the latest ids, the first bytes of each body. A request with an invalid
signature gets 401, as from a careful receiver.
"""

import asyncio
import random
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

import aiohttp
import orjson
from aiohttp import web

from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings import Settings
from dispatcher.core.diagnosis import Request
from dispatcher.core.profile import Profile
from dispatcher.dev.diagnosing import diagnose_secrets, profile_of_headers
from dispatcher.runtime.clock import SystemClock

BODY_BYTES_MAX: Final = 2 * 1024 * 1024
KEPT_REQUESTS_MAX: Final = 1_000
KEPT_BODY_BYTES_MAX: Final = 16_384
KEPT_IDS_MAX: Final = 20_000
TOLERANCE_SECONDS: Final = 300.0
FAILING_STATUS: Final = 503
_FORWARD_SECONDS_MAX: Final = 30.0
_FORWARDED_BYTES_MAX: Final = 65_536
_NOT_FORWARDED: Final = frozenset({"host", "content-length", "connection", "transfer-encoding"})


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """The responses of a receiver; only the receiver decrements `fail_first`."""

    status: int = 200
    fail_first: int = 0
    fail_rate: float = 0.0
    delay_seconds: float = 0.0
    stall_seconds: float = 0.0
    drip_seconds: float = 0.0
    retry_after: str | None = None
    forward_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverRoute:
    """The expectations of a path; a missing profile is detected from the headers, no secret means no verification."""

    profile: str | None = None
    secrets: Sequence[str] = ()
    behaviour: Behaviour = field(default_factory=Behaviour)
    authorization: str | None = None
    """The required value of the header Authorization; None: it is not checked."""


class Received(NamedTuple):
    """One request."""

    at: datetime
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """The first bytes of it."""
    body_bytes: int
    profile: str | None
    delivery_id: str | None
    """The id for deduplication: the delivery's id if the format has it, otherwise the event's."""
    is_repeat: bool
    verdict: str
    """`valid`, `unverified` (no secret, or no known format), otherwise the error."""
    status: int


class Receiver:
    """One server; `start` binds and `stop` ends it. `received` has the latest requests, oldest first."""

    def __init__(
        self,
        route: ReceiverRoute | None = None,
        *,
        routes: Mapping[str, ReceiverRoute] | None = None,
        heard: Callable[[Received], None] = lambda _: None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Call `heard` for each request, before the response."""
        self._route = route or ReceiverRoute()
        self.routes = dict(routes or {})
        self._heard = heard
        self._tls = tls
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self._arrived = asyncio.Event()
        self._profiles: Mapping[str, Profile] = load_profiles(
            Settings().directories_for("profiles")
        ).profiles
        self.received: deque[Received] = deque(maxlen=KEPT_REQUESTS_MAX)
        self.count = 0
        self.repeat_count = 0
        self.invalid_count = 0

    def expect(self, profile: str, secrets: Sequence[str]) -> None:
        """Verify requests from now on by a profile and its secrets, on every path without a route of its own."""
        self._route = replace(self._route, profile=profile, secrets=secrets)

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, bound: socket.socket | None = None
    ) -> int:
        """Bind and serve, or serve on `bound`; return the port.

        Raises:
            OSError: the address is not available.
        """
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_route("*", "/{path:.*}", self._take)
        runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.5
        )
        await runner.setup()
        try:
            if bound is not None:
                await web.SockSite(runner, bound, ssl_context=self._tls).start()
            else:
                await web.TCPSite(runner, host, port, ssl_context=self._tls).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving and cut off open requests."""
        if self._client is not None:
            await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_for(self, count: int, timeout_seconds: float = 10.0) -> None:
        """Wait until `count` requests have arrived in total.

        Raises:
            TimeoutError: fewer arrived.
        """
        async with asyncio.timeout(timeout_seconds):
            while self.count < count:
                self._arrived.clear()
                await self._arrived.wait()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        route = self.routes.get(request.path, self._route)
        headers = {name.lower(): value for name, value in request.headers.items()}
        profile = route.profile or profile_of_headers(headers, self._profiles)
        verdict = self._verify(request, body, profile, route)
        delivery_id = _delivery_id(headers, body, profile)
        is_repeat = self._is_repeat(request.path, delivery_id)
        behaviour = route.behaviour
        status = self._choose_status(behaviour, verdict)
        response: web.StreamResponse | None = None
        if behaviour.forward_to is not None:
            response = await self._forward(behaviour.forward_to, request, body)
            status = response.status
        self._remember(
            Received(
                SystemClock.now(),
                request.method,
                request.path,
                headers,
                body[:KEPT_BODY_BYTES_MAX],
                len(body),
                profile,
                delivery_id,
                is_repeat,
                verdict,
                status,
            )
        )
        return response or await self._answer(request, behaviour, status)

    def _verify(
        self, request: web.Request, body: bytes, profile: str | None, route: ReceiverRoute
    ) -> str:
        """Return `valid`, `unverified`, or the code of the mistake and its message."""
        if route.authorization not in {None, request.headers.get("Authorization")}:
            return "unauthorized: the header Authorization is missing or wrong"
        if not route.secrets:
            return "unverified"
        if profile is None or profile not in self._profiles:
            return "no signature of a known format"
        headers = {name.lower(): request.headers.getall(name) for name in request.headers}
        finding = diagnose_secrets(
            Request(headers, body),
            route.secrets,
            profile=self._profiles[profile],
            profiles=self._profiles,
            tolerance_seconds=TOLERANCE_SECONDS,
        )
        return "valid" if finding.code == "valid" else f"{finding.code}: {finding.message}"

    def _is_repeat(self, path: str, delivery_id: str | None) -> bool:
        if delivery_id is None:
            return False
        key = (path, delivery_id)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > KEPT_IDS_MAX:
            self._seen.popitem(last=False)
        return False

    def _choose_status(self, behaviour: Behaviour, verdict: str) -> int:
        if verdict not in {"valid", "unverified"}:
            return 401
        if behaviour.fail_first > 0:
            behaviour.fail_first -= 1
            return FAILING_STATUS
        if behaviour.fail_rate and random.random() < behaviour.fail_rate:  # noqa: S311 -- a dice for tests
            return FAILING_STATUS
        return behaviour.status

    def _remember(self, received: Received) -> None:
        self.received.append(received)
        self.count += 1
        self.repeat_count += received.is_repeat
        self.invalid_count += received.verdict not in {"valid", "unverified"}
        self._arrived.set()
        self._heard(received)

    async def _answer(
        self, request: web.Request, behaviour: Behaviour, status: int
    ) -> web.StreamResponse:
        if behaviour.delay_seconds:
            await asyncio.sleep(behaviour.delay_seconds)
        if behaviour.stall_seconds:
            await asyncio.sleep(behaviour.stall_seconds)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=status)
        headers = {}
        if behaviour.retry_after is not None and not 200 <= status <= 299:  # noqa: PLR2004 -- success
            headers["Retry-After"] = behaviour.retry_after
        text = b"ok\n" if 200 <= status <= 299 else f"this receiver answers {status}\n".encode()  # noqa: PLR2004 -- success
        if not behaviour.drip_seconds:
            return web.Response(status=status, body=text, headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(text)
        await response.prepare(request)
        for byte in text:
            await response.write(bytes([byte]))
            await asyncio.sleep(behaviour.drip_seconds / len(text))
        await response.write_eof()
        return response

    async def _forward(self, url: str, request: web.Request, body: bytes) -> web.Response:
        """Forward a request unchanged, and return the response, or 502 if there is none."""
        if self._client is None:
            timeout = aiohttp.ClientTimeout(total=_FORWARD_SECONDS_MAX)
            # aiohttp's own context may have no authorities (`runtime/lean_imports.py`).
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()),
                timeout=timeout,
                trust_env=False,
                auto_decompress=False,
            )
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _NOT_FORWARDED
        ]
        try:
            async with self._client.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                text = await answer.content.read(_FORWARDED_BYTES_MAX)
                kind = answer.headers.get("Content-Type", "text/plain")
                return web.Response(status=answer.status, body=text, headers={"Content-Type": kind})
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=502, text=f"{url}: {str(error) or type(error).__name__}\n")


def _delivery_id(headers: Mapping[str, str], body: bytes, profile: str | None) -> str | None:
    match profile:
        case "humansoft":
            return headers.get("x-webhook-id")
        case "standard":
            return headers.get("webhook-id")
        case "github":
            return headers.get("x-github-delivery")
        case "wms" | "stripe":
            try:
                found = orjson.loads(body)
            except orjson.JSONDecodeError:
                return None
            identifier = found.get("id") if isinstance(found, dict) else None
            return identifier if isinstance(identifier, str) else None
        case _:
            return None
