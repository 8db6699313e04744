"""Pages over HTTP on a long history: what a person waits for, and a program that lists.

`python -m benchmarks console [--short] [--deliveries N] [--rounds N] [--json PATH]`. A daemon on a
history of 30 days (`tests/support/long_history.py`) answers each page of the console and each list of
the API, in turns; printed are median and 95th percentile of each in milliseconds, from the request
to the last byte. The aim is a 95th percentile of at most 200 on two cores. `pages` asks the
operations behind them, with every filter.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import uvloop

from benchmarks.harness import Dispatcher, Goal, arguments, postgres, write_results
from tests.support.long_history import RARE_TYPE, Seeded, seed

TOKEN: Final = "benchmark-token-of-more-than-32-characters"  # noqa: S105 -- of a daemon that lives for minutes
GOAL_MILLISECONDS: Final = 200.0


def paths(seeded: Seeded) -> dict[str, str]:
    """Returns what is asked for, by name."""
    big, few = seeded.big_endpoint, seeded.small_endpoint
    console = {
        "overview": "/",
        "webhooks": "/webhooks",
        "new webhook": "/webhooks/new",
        "webhook": f"/webhooks/{big}",
        "webhook, deliveries": f"/webhooks/{big}/deliveries",
        "webhook with few, deliveries": f"/webhooks/{few}/deliveries",
        "deliveries": "/deliveries",
        "deliveries, failed": "/deliveries?state=failed",
        "deliveries, rare type": f"/deliveries?event_type={RARE_TYPE}",
        "deliveries, business key": f"/deliveries?search={seeded.rare_label[1]}",
        "delivery": f"/deliveries/{seeded.old_delivery}",
        "events": "/events",
        "event": f"/events/{seeded.old_event}",
        "activity": "/activity",
        "tokens": "/tokens",
        "system": "/system",
    }
    api = {
        "endpoints": "endpoints",
        "deliveries": "deliveries",
        "deliveries, 500": "deliveries?limit=500",
        "deliveries, rare type": f"deliveries?event_type={RARE_TYPE}",
        "deliveries, failed": "deliveries?state=failed",
        "delivery": f"deliveries/{seeded.old_delivery}",
        "events": "events",
        "event": f"events/{seeded.old_event}",
        "explain": f"events/{seeded.old_event}/explain",
        "audit": "audit",
        "tokens": "tokens",
    }
    return {
        **{f"console: {name}": path for name, path in console.items()},
        **{f"api: {name}": f"/api/v1/{path}" for name, path in api.items()},
    }


async def signed_in(client: aiohttp.ClientSession, origin: str) -> None:
    """Begins a session of the console with the deployment's token."""
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    async with client.post(f"{origin}/sign-in", data={"token": TOKEN}, headers=headers) as answer:
        if answer.status >= 400 or "/sign-in" in str(answer.url):
            raise SystemExit(f"the console refused the token: {answer.status} {answer.url}")


async def ask(origin: str, wanted: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Asks for everything in turns, once to warm up; returns the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in wanted}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(
        cookie_jar=jar, headers={"Authorization": f"Bearer {TOKEN}"}
    ) as client:
        await signed_in(client, origin)
        for turn in range(rounds + 1):
            for name, path in wanted.items():
                started = time.perf_counter()
                async with client.get(origin + path) as answer:
                    await answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{path}: {answer.status}")
                if turn:
                    seconds[name].append(time.perf_counter() - started)
    return seconds


async def _seeded(url: str, count: int) -> Seeded:
    connection = await asyncpg.connect(url)
    try:
        return await seed(connection, count)
    finally:
        await connection.close()


def p95(seconds: list[float]) -> float:
    """Returns the 95th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)] * 1000


def main() -> None:
    """Runs it and prints a table."""
    options = arguments(
        "console",
        __doc__,
        short={"deliveries": 200_000, "rounds": 20},
        full={"deliveries": 1_000_000, "rounds": 40},
    )
    with postgres() as (_, url), tempfile.TemporaryDirectory() as name:
        seeded = asyncio.run(_seeded(url, options.deliveries))
        daemon = Dispatcher(
            url,
            Path(name),
            cpu=None,
            DISPATCHER_ADMIN_TOKEN=TOKEN,
            DISPATCHER_HTTP__REQUESTS_PER_SECOND="10000",
        )
        daemon.start()
        try:
            origin = f"http://127.0.0.1:{daemon.port}"
            seconds = uvloop.run(ask(origin, paths(seeded), options.rounds))
        finally:
            daemon.stop()
    figures = {
        name: {"p50_ms": statistics.median(one) * 1000, "p95_ms": p95(one)}
        for name, one in seconds.items()
    }
    for name, one in figures.items():
        print(f"{name:<40} p50 {one['p50_ms']:8.1f}  p95 {one['p95_ms']:8.1f} ms")
    write_results(
        "console",
        {"deliveries": seeded.deliveries_count, "rounds": options.rounds, "pages": figures},
        options.json,
        [
            Goal(
                0,
                "p95 of the slowest page or list, ms",
                GOAL_MILLISECONDS,
                [max(one["p95_ms"] for one in figures.values())],
                at_least=False,
            )
        ],
    )


if __name__ == "__main__":
    main()
