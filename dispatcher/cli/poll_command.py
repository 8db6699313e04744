"""`dispatcher poll`: fetches the deliveries of an endpoint over the API, and forwards them to a local URL."""

import asyncio
import signal
import sys
from typing import Any, Final

import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout

from dispatcher.cli.output import say_json, tell
from dispatcher.cli.session import guarded
from dispatcher.core.errors import DispatcherError
from dispatcher.core.printable import escape
from dispatcher.runtime.backoff import Backoff

WAIT_SECONDS: Final = 30
API_SECONDS_MAX: Final = 60.0
UNREACHABLE_CODE: Final = 502
"""The result of a delivery whose local receiver could not be reached: Bad Gateway."""
_FINAL: Final = frozenset({401, 403, 404, 409, 422})
"""Responses of the API that another try does not change."""


def poll(
    *,
    url: str,
    token: str,
    endpoint: str,
    forward: str,
    limit: int,
    lease_seconds: float,
    once: bool,
) -> None:
    """Fetch and forward deliveries until Ctrl-C; with `once` until none is due."""

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- this coroutine is a task
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        headers = {"Authorization": f"Bearer {token}"}
        async with ClientSession(headers=headers) as api, ClientSession() as local:
            poller = _Poller(api, local, url.rstrip("/") + "/api/v1", forward, lease_seconds)
            try:
                await poller.run(await poller.id_of(endpoint), limit, once=once)
            except asyncio.CancelledError:
                task.uncancel()
            tell(f"{poller.acknowledged} acknowledged, {poller.rejected} rejected")

    guarded(lambda: uvloop.run(run()))


class _Poller:
    """Fetches from one dispatcher and forwards to one URL."""

    def __init__(
        self, api: ClientSession, local: ClientSession, url: str, forward: str, lease_seconds: float
    ) -> None:
        self._api = api
        self._local = local
        self._url = url
        self._forward = forward
        self._lease_seconds = lease_seconds
        self.acknowledged = self.rejected = 0

    async def id_of(self, endpoint: str) -> str:
        """Return the id of an endpoint; a token for one endpoint needs the id itself."""
        if endpoint.startswith("ep_"):
            return endpoint
        page = await self._call("GET", "/endpoints", params={"name": endpoint})
        if len(page["items"]) != 1:
            found = "no endpoint" if not page["items"] else "several endpoints"
            raise DispatcherError(f"there is {found} of the name {endpoint}. Give its id, ep_…")
        return str(page["items"][0]["id"])

    async def run(self, endpoint_id: str, limit: int, *, once: bool) -> None:
        """Poll; after an error that may pass, poll again with backoff."""
        path, backoff = f"/endpoints/{endpoint_id}/poll", Backoff(0.5, 30.0)
        wait_seconds = 0 if once else WAIT_SECONDS
        query = {"limit": limit, "wait_seconds": wait_seconds, "lease_seconds": self._lease_seconds}
        while True:
            try:
                items = (await self._call("GET", path, params=query))["items"]
                if items:
                    async with asyncio.TaskGroup() as tasks:
                        handled = [tasks.create_task(self._handle(item)) for item in items]
                    results = [task.result() for task in handled]
                    await self._call("POST", path, json={"results": results})
                elif once:
                    return
                backoff.reset()
            except (ClientError, TimeoutError, OSError) as error:
                tell(f"cannot reach the dispatcher: {_text(error)}; trying again")
                await backoff.pause()

    async def _handle(self, item: dict[str, Any]) -> dict[str, Any]:
        """Forward one delivery byte for byte, and return its result."""
        result: dict[str, Any] = {"lease_id": item["lease_id"]}
        timeout = ClientTimeout(total=max(0.5, self._lease_seconds * 0.9))
        try:
            async with self._local.post(
                self._forward,
                data=item["body"].encode(),
                headers=item["headers"],
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                result["response_code"] = response.status
                await response.read()
        except (ClientError, TimeoutError, OSError) as error:
            result["response_code"] = UNREACHABLE_CODE
            result["error"] = escape(_text(error))[:256]
        is_ok = result["response_code"] // 100 == 2  # noqa: PLR2004 -- the class of success
        self.acknowledged += is_ok
        self.rejected += not is_ok
        say_json(
            {
                "delivery_id": item["delivery_id"],
                "event_type": item["event_type"],
                "attempt_number": item["attempt_number"],
                "response_code": result["response_code"],
            },
            indent=False,
        )
        sys.stdout.flush()
        return result

    async def _call(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 -- JSON
        timeout = ClientTimeout(total=API_SECONDS_MAX)
        async with self._api.request(
            method, self._url + path, timeout=timeout, **options
        ) as response:
            if response.status in _FINAL:
                raise DispatcherError(
                    f"the dispatcher rejected the request: {escape(await response.text())}"
                )
            response.raise_for_status()
            return await response.json()


def _text(error: Exception) -> str:
    """Return the message of an error, or its kind where it has none."""
    return str(error) or type(error).__name__
