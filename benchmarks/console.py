"""Pages over HTTP on a long history: what a person waits for, and a program that lists.

`python -m benchmarks console [--short] [--deliveries N] [--rounds N] [--json PATH]`. A daemon on a
history of 30 days (`tests/support/long_history.py`) answers each page of the console and each list of
the API, in turns; printed are median and 95th percentile of each in milliseconds, from the request
to the last byte. The aim is a 95th percentile of at most 60 on two cores without other load, which the
first line, a page without a database, and the load average show. `pages` asks the
operations behind them, with every filter.
"""

import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from benchmarks.contenders import Contender
from benchmarks.harness import TOKEN, Goal, arguments, postgres, write_results
from tests.support.long_history import RARE_TYPE, Seeded

GOAL_MILLISECONDS: Final = 60.0
YARDSTICK: Final = "yardstick without a database"
"""What the machine's other work adds to each page: below 2 ms on two processors without other load."""


def paths(seeded: Seeded) -> dict[str, str]:
    """Returns what is asked for, by name."""
    big, few = seeded.big_endpoint, seeded.small_endpoint
    console = {
        YARDSTICK: "/livez",
        "overview": "/",
        "overview, 30 days": "/?range=30d",
        "problems": "/problems",
        "search, order number": f"/search?q={seeded.rare_label[1]}",
        "webhooks": "/webhooks",
        "new webhook": "/webhooks/new",
        "webhook": f"/webhooks/{big}",
        "webhook, deliveries": f"/webhooks/{big}/deliveries",
        "webhook with few, deliveries": f"/webhooks/{few}/deliveries",
        "deliveries": "/deliveries",
        "deliveries, failed": "/deliveries?state=failed",
        "deliveries, rare type": f"/deliveries?event_type={RARE_TYPE}",
        "deliveries, rare pattern": f"/deliveries?event_type={RARE_TYPE.partition('.')[0]}.*",
        "deliveries, 5xx": "/deliveries?response=5xx",
        "deliveries, status code": "/deliveries?response=503",
        "deliveries, business key": f"/deliveries?q={seeded.rare_label[1]}",
        "schedule": "/schedule",
        "jobs": "/jobs",
        "event types": "/event-types",
        "delivery": f"/deliveries/{seeded.old_delivery}",
        "events": "/events",
        "event": f"/events/{seeded.old_event}",
        "activity": "/activity",
        "notifications": "/notifications",
        "access": "/access",
        "sessions": "/access/sessions",
        "system": "/system",
        "settings": "/system/settings",
        "help": "/help/reference/console",
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


@asynccontextmanager
async def reader(origin: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Yields a client that may read the API, and has a session of the console."""
    jar = aiohttp.CookieJar(unsafe=True)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(cookie_jar=jar, headers=headers) as client:
        await signed_in(client, origin)
        yield client


async def missing(origin: str, wanted: Mapping[str, str]) -> set[str]:
    """Returns the names of the pages that this version does not have."""
    found = set()
    async with reader(origin) as client:
        for name, path in wanted.items():
            async with client.get(origin + path) as answer:
                await answer.read()
                if answer.status != 200:
                    found.add(name)
    return found


async def ask(
    sites: Mapping[str, tuple[str, Mapping[str, str]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Asks every site for each of its pages in turns, once to warm up; returns the seconds of each.

    A site is an origin and its paths by name. All sites have the same names, and each page is asked of
    one site right after the other, so that they meet the machine in the same state.
    """
    seconds = {
        kind: {name: list[float]() for name in wanted} for kind, (_, wanted) in sites.items()
    }
    async with AsyncExitStack() as stack:
        clients = {
            kind: await stack.enter_async_context(reader(origin))
            for kind, (origin, _) in sites.items()
        }
        names = next(iter(seconds.values())).keys()
        for turn in range(rounds + 1):
            for name in names:
                for kind, (origin, wanted) in sites.items():
                    started = time.perf_counter()
                    async with clients[kind].get(origin + wanted[name]) as answer:
                        await answer.read()
                    if answer.status != 200:
                        raise SystemExit(f"{wanted[name]}: {answer.status}")
                    if turn:
                        seconds[kind][name].append(time.perf_counter() - started)
    return seconds


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
    with postgres() as (server, _), tempfile.TemporaryDirectory() as name:
        contender = Contender("ours", server, Path(name))
        seeded = contender.seed(options.deliveries)
        with contender.running(cpu=None) as daemon:
            sites = {"ours": (daemon.origin, paths(seeded))}
            seconds = uvloop.run(ask(sites, options.rounds))["ours"]
    figures = {
        name: {"p50_ms": statistics.median(one) * 1000, "p95_ms": p95(one)}
        for name, one in seconds.items()
    }
    print(f"load average {os.getloadavg()[0]:.1f}")
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
