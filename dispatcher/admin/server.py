"""The HTTP server: liveness, readiness, metrics, the API and the console.

Liveness depends only on the event loop, which must respond, because a database outage must not restart
every replica. Readiness requires that Postgres accepts writes, that intake is alive and that no drain is
under way. `/metrics` is served from memory. The figures of the whole database are refreshed in the
background, and omitted while they are not known.

With `http.probe_port` these three paths are served on that port and not on `http.port`. Without it they
share `http.port`, whose reserved seats keep them reachable when the listener is full. A process of the
role `delivery` serves these three paths only.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import orjson
from aiohttp import web

from dispatcher.admin.auth import Auth
from dispatcher.admin.listener import DirectHandler, HttpListener, ProbeListener
from dispatcher.admin.oidc.sign_on import SignOn
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.written_response import PROTECTION, SENT, SERVER
from dispatcher.config.settings import Settings
from dispatcher.core.errors import ConfigurationError

READY_TEXT = "ready"
BODY_BYTES_MAX = 1024 * 1024


class Server:
    """Serves probes, metrics, the API and the console; `start` binds the ports, and `stop` closes them."""

    def __init__(
        self,
        *,
        problems: Callable[[], Awaitable[list[str]]],
        render_metrics: Callable[[], Awaitable[bytes]],
        operations: Operations,
        auth: Auth,
        settings: Settings,
        sign_on: SignOn | None = None,
        serves_api: bool = True,
        probe_path: str | None = None,
    ) -> None:
        """Without `serves_api` there are the probes only; `probe_path` is a Unix socket for them."""
        self._problems = problems
        self._render_metrics = render_metrics
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.on_response_prepare.append(_protect)
        probes = web.Application(client_max_size=0)
        probes.on_response_prepare.append(_protect)
        probes.on_response_prepare.append(_close_after)
        self._add_probes(probes)
        http = settings.http
        self._probe_port = http.probe_port
        self._probe_path = probe_path
        has_own = probe_path is not None or http.probe_port
        self._probe_listener = ProbeListener(probes) if has_own or not serves_api else None
        if not serves_api and not has_own:
            self._probe_port = http.port
        self._listener: HttpListener | None = None
        if not serves_api:
            return
        from dispatcher.admin.api.handler import PUBLISH, add_api  # noqa: PLC0415 -- the role `delivery` needs neither
        from dispatcher.admin.api.published_keys import add_published_keys  # noqa: PLC0415 -- as above
        from dispatcher.admin.console import add_console  # noqa: PLC0415 -- as above

        if self._probe_listener is None:
            self._add_probes(application)
        publish = add_api(application, operations, auth, settings)
        add_published_keys(application, operations, settings)
        add_console(application, operations, auth, settings, sign_on)
        self._listener = HttpListener(
            application,
            http.connections_max,
            probes=probes if self._probe_listener is None else None,
            trusted=http.trusted_proxies,
            direct={PUBLISH: _protected(publish)},
        )

    def _add_probes(self, application: web.Application) -> None:
        application.router.add_get("/livez", self._live)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)

    async def start(self, host: str, port: int, bound: socket.socket | None = None) -> int:
        """Bind and serve, or serve the socket `bound`; return the port, which the system chooses if it was 0.

        Raises:
            ConfigurationError: an address is not available; the message names the setting.
        """
        probe_port = 0
        if self._probe_listener is not None and self._probe_path is not None:
            await self._probe_listener.start_at(self._probe_path)
        elif self._probe_listener is not None:
            setting = "http.port" if self._probe_port == port else "http.probe_port"
            with _named(setting, host, self._probe_port):
                probe_port = await self._probe_listener.start(host, self._probe_port)
        if self._listener is None:
            return probe_port
        with _named("http.port", host, port):
            return await self._listener.start(host, port, bound)

    async def stop(self) -> None:
        """Stop serving."""
        if self._listener is not None:
            await self._listener.stop()
        if self._probe_listener is not None:
            await self._probe_listener.stop()

    async def _live(self, _: web.Request) -> web.Response:
        return _json({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        problems = await self._problems()
        if problems:
            return _json({"status": "not ready", "problems": problems}, status=503)
        return _json({"status": READY_TEXT})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=await self._render_metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


@contextmanager
def _named(setting: str, host: str, port: int) -> Iterator[None]:
    """Name the setting whose address is not available."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            [f"{setting}: cannot listen on {host}:{port}: {error.strerror}"]
        ) from error


async def _close_after(_: web.Request, response: web.StreamResponse) -> None:
    """End the connection with its response: a seat serves one request."""
    response.force_close()
    response.headers["Connection"] = "close"


async def _protect(_: web.BaseRequest, response: web.StreamResponse) -> None:
    """Add the headers of every response, unless it sets them."""
    for name, value in PROTECTION.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER


def _protected(handler: DirectHandler) -> DirectHandler:
    """Return the handler of a request that reaches no application, whose signals would add the headers."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await handler(request)
        if response is not SENT:
            await _protect(request, response)
        return response

    return answer


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value) + b"\n",
        status=status,
        content_type="application/json",
    )
