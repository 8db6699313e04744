"""What people who look cost those who wait: a drain with ten viewers, beside one without.

`python -m benchmarks viewers [--short] [--events N] [--rounds N] [--json PATH]`. Each round
drains N events twice with the same daemon: alone, and while ten people have the live tail open and
each of them opens a page every ten seconds, the overview and the list of deliveries by turns. The
ratio is of CPU a delivery, daemon and Postgres together; the aim is at most 1.05.
"""

import asyncio
import contextlib
import itertools
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.console import signed_in
from benchmarks.drain import SETTINGS, Figures, drain, ratio, save_endpoint
from benchmarks.harness import Dispatcher, Goal, arguments, postgres, receiver, write_results

VIEWERS: Final = 10
SECONDS_BETWEEN: Final = 10.0
GOAL: Final = 1.05


async def _view(
    origin: str, number: int, watching: threading.Semaphore, ended: asyncio.Event
) -> None:
    """Is one viewer: a session, a tail that is read, and pages every few seconds."""
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(total=None)
    ) as client:
        await signed_in(client, origin)
        async with client.get(f"{origin}/deliveries/tail") as tail:
            if tail.status != 200:
                raise SystemExit(f"the tail answered {tail.status}")
            reading = asyncio.ensure_future(_read(tail))
            watching.release()
            try:
                await _until(ended, SECONDS_BETWEEN * number / VIEWERS)
                for path in itertools.cycle(("/", "/deliveries")):
                    if ended.is_set():
                        break
                    async with client.get(origin + path) as page:
                        await page.read()
                    await _until(ended, SECONDS_BETWEEN)
            finally:
                reading.cancel()


async def _read(tail: aiohttp.ClientResponse) -> None:
    with contextlib.suppress(aiohttp.ClientError):  # closed under the reader, at the end
        async for _ in tail.content.iter_any():
            pass


async def _until(ended: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return


@contextmanager
def viewers(origin: str) -> Iterator[None]:
    """Lets ten people look while the block runs; begins once all their tails are open."""
    watching = threading.Semaphore(0)
    loop_and_end: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def look() -> None:
        ended = asyncio.Event()
        loop_and_end.append((asyncio.get_running_loop(), ended))
        async with asyncio.TaskGroup() as group:
            for number in range(VIEWERS):
                group.create_task(_view(origin, number, watching, ended))

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    if not all(watching.acquire(timeout=30) for _ in range(VIEWERS)):
        raise SystemExit("the viewers did not come")
    try:
        yield
    finally:
        loop, ended = loop_and_end[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)


def main() -> None:
    """Runs the rounds and prints the ratio."""
    options = arguments(
        "viewers",
        __doc__,
        short={"events": 60_000, "rounds": 5},
        full={"events": 120_000, "rounds": 9},
    )
    alone: list[Figures] = []
    watched: list[Figures] = []
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(save_endpoint(url, target))
        daemon = Dispatcher(url, Path(name), **SETTINGS)
        daemon.start()
        try:
            postgres_id = server.process_id or 0
            drain(url, [daemon], target, postgres_id, 5_000)  # warm
            for number in range(1, options.rounds + 1):
                alone.append(drain(url, [daemon], target, postgres_id, options.events))
                with viewers(f"http://127.0.0.1:{daemon.port}"):
                    watched.append(drain(url, [daemon], target, postgres_id, options.events))
                print(
                    f"round {number}: alone {_cost(alone[-1]):.1f} µs  watched {_cost(watched[-1]):.1f} µs"
                )
        finally:
            daemon.stop()
    costs = [{"cost": _cost(one)} for one in alone], [{"cost": _cost(one)} for one in watched]
    print(f"alone, median: {statistics.median(one['cost'] for one in costs[0]):.1f} µs")
    write_results(
        "viewers",
        {"events": options.events, "viewers": VIEWERS, "alone": alone, "watched": watched},
        options.json,
        [
            Goal(
                0,
                "CPU a delivery with ten viewers, over that without",
                GOAL,
                ratio(costs[1], costs[0], "cost"),
                at_least=False,
            )
        ],
    )


def _cost(figures: Figures) -> float:
    return figures["cpu_us"] + figures["postgres_us"]


if __name__ == "__main__":
    main()
