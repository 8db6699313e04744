"""The one HTTP listener: liveness, readiness, metrics, the API and the console.

Liveness is the event loop alone: that it answers at all. A database outage must not restart every
replica. Readiness is a write that is possible, intake that turns, and no drain under way.
`/metrics` is answered from memory; the figures of the whole database are refreshed behind it, and
left out while they are not known.
"""

import socket
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from dispatcher.admin.api.dispatch import add_api
from dispatcher.admin.auth import Auth
from dispatcher.admin.console import add_console
from dispatcher.admin.listener import Listener
from dispatcher.admin.operations.facade import Operations
from dispatcher.config.settings import Settings

READY_TEXT = "ready"
BODY_BYTES_MAX = 1024 * 1024


class Server:
    """Answers probes, scrapes, programs and people; `start` binds, `stop` ends it."""

    def __init__(
        self,
        *,
        problems: Callable[[], Awaitable[list[str]]],
        render_metrics: Callable[[], Awaitable[bytes]],
        operations: Operations,
        auth: Auth,
        settings: Settings,
    ) -> None:
        self._problems = problems
        self._render_metrics = render_metrics
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.on_response_prepare.append(_protect)
        application.router.add_get("/livez", self._live)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        add_api(application, operations, auth, settings)
        add_console(application, operations, auth, settings)
        self._listener = Listener(application, settings.http.connections_max)

    async def start(self, host: str, port: int, bound: socket.socket | None = None) -> int:
        """Binds and serves, or serves what is `bound`; returns the port, the system's choice where it was 0.

        Raises:
            OSError: the address is not to be had.
        """
        return await self._listener.start(host, port, bound)

    async def stop(self) -> None:
        """Stops serving."""
        await self._listener.stop()

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


async def _protect(_: web.Request, response: web.StreamResponse) -> None:
    """Adds what every answer has, unless it says otherwise: no guessing of types, no copies kept."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers["Server"] = "dispatcher"


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value) + b"\n",
        status=status,
        content_type="application/json",
    )
