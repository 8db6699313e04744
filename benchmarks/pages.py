"""Pages on a long history: every list and every show, with each filter alone and in bad company.

`python -m benchmarks pages [--short] [--deliveries N] [--backlog N] [--rounds N] [--json PATH]`. A
history of 30 days (`tests/support/long_history.py`) is copied into a durable Postgres, and a backlog of
open deliveries if asked for; then each question is asked `--rounds` times through the operations, in
turns, as API, console and command line ask them. Searches in payloads read for as long as their budget
allows; `benchmarks search` measures them. Printed are the median and the 95th percentile of each
in milliseconds; the aim is a 95th percentile of at most 200 on two cores. Further pages follow the
cursor to the tenth page.

`--against COMMIT|FOLDER` compares with another version of this project over HTTP: the pages of the
console, the lists of the API and each filter, as far as both versions have them. Here both daemons run,
each page is read from one and then from the other, and they have nothing to deliver.
"""

import argparse
import base64
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import uvloop

from benchmarks import console, harness
from benchmarks.contenders import Contender, checkouts
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.operations.overview import Overview
from dispatcher.admin.operations.system import System
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import NotFoundError
from dispatcher.store.pool import Database
from tests.support.long_history import OLD_TYPE, RARE_TYPE, USUAL_TYPE, Seeded, seed, seed_backlog

GOAL_MILLISECONDS: Final = 200.0
ALL: Final = Actor(name="benchmark")

Question = Callable[[], Awaitable[object]]


def filters(seeded: Seeded, now: datetime) -> dict[str, Mapping[str, Any]]:
    """Returns the filters of deliveries, by name."""
    old = now - timedelta(days=20)
    return {
        "newest": {},
        "endpoint with a third of all": {"endpoint_id": seeded.big_endpoint},
        "endpoint with few": {"endpoint_id": seeded.small_endpoint},
        "usual type": {"event_type": USUAL_TYPE},
        "rare type": {"event_type": RARE_TYPE},
        "type of weeks ago": {"event_type": OLD_TYPE},
        "type that nothing has": {"event_type": "no.such"},
        "pending": {"state": "pending"},
        "succeeded": {"state": "succeeded"},
        "failed": {"state": "failed"},
        "cancelled (rare)": {"state": "cancelled"},
        "tenant with few": {"tenant": seeded.tiny_tenant},
        "tenant with most": {"tenant": "default"},
        "tenant that is none": {"tenant": "nobody"},
        "test": {"test": True},
        "no test": {"test": False},
        "since": {"since": now - timedelta(hours=1)},
        "until, old": {"until": old},
        "one old hour": {"since": old - timedelta(hours=1), "until": old},
        "event": {"event_id": seeded.old_event},
        "request id": {"request_id": seeded.request_id},
        "request id that nothing has": {"request_id": "req_0123456789abcdef"},
        "label, rare": {"label": ["=".join(seeded.rare_label)]},
        "label, common": {"label": ["warehouse=BKK"]},
        "label, common, old": {"label": ["warehouse=BKK"], "until": old},
        "label that nothing has": {"label": ["no=such"]},
        "search: common value": {"q": "BKK"},
        "search: event": {"q": seeded.old_event},
        "search: delivery": {"q": seeded.old_delivery},
        "rare type + cancelled": {"event_type": RARE_TYPE, "state": "cancelled"},
        "rare type + tenant with few": {"event_type": RARE_TYPE, "tenant": seeded.tiny_tenant},
        "rare type + big endpoint": {"event_type": RARE_TYPE, "endpoint_id": seeded.big_endpoint},
        "old type + big endpoint + failed": {
            "event_type": OLD_TYPE,
            "endpoint_id": seeded.big_endpoint,
            "state": "failed",
        },
        "cancelled + tenant with few": {"state": "cancelled", "tenant": seeded.tiny_tenant},
        "cancelled + big endpoint": {"state": "cancelled", "endpoint_id": seeded.big_endpoint},
        "common label + tenant with few": {
            "label": ["warehouse=BKK"],
            "tenant": seeded.tiny_tenant,
        },
        "common label + rare type": {"label": ["warehouse=BKK"], "event_type": RARE_TYPE},
        "common label + cancelled": {"label": ["warehouse=BKK"], "state": "cancelled"},
        "common label + endpoint with few": {
            "label": ["warehouse=BKK"],
            "endpoint_id": seeded.small_endpoint,
        },
    }  # fmt: skip -- one filter a line


def paths(seeded: Seeded, now: datetime) -> dict[str, str]:
    """Returns what is asked over HTTP, by name: the console, the API, and the API's filters."""
    found = console.paths(seeded)
    for name, wanted in filters(seeded, now).items():
        words = {key: _text(value) for key, value in wanted.items()}
        found[f"filter: {name}"] = f"/api/v1/deliveries?{urlencode(words, doseq=True)}"
    return found


def _text(value: object) -> str | list[str]:
    if isinstance(value, list):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def questions(deployment: Deployment, seeded: Seeded) -> dict[str, Question]:
    """Returns what is asked, by name."""
    now = deployment.clock.now()
    old = now - timedelta(days=20)
    deliveries, events = DeliveryOperations(deployment), Events(deployment)
    endpoints, overview = Endpoints(deployment), Overview(deployment)
    found: dict[str, Question] = {
        f"deliveries: {name}": partial(deliveries.page, ALL, DeliveriesQuery.of(**wanted))
        for name, wanted in filters(seeded, now).items()
    }
    found |= {
        "deliveries: tenth page": partial(_tenth, deliveries, {}),
        "deliveries: tenth page, until, old": partial(_tenth, deliveries, {"until": old}),
        "deliveries: tenth page, failed": partial(_tenth, deliveries, {"state": "failed"}),
        "jobs: count before a resend of failed": partial(
            JobOperations(deployment).count,
            ALL,
            NewJob.of(kind="resend", filter=JobFilter.of(state="failed")),
        ),
        "delivery: show": partial(deliveries.show, ALL, seeded.old_delivery),
        "events: newest": partial(events.page, ALL),
        "events: rare type": partial(events.page, ALL, EventsQuery(type=RARE_TYPE)),
        "events: type of weeks ago": partial(events.page, ALL, EventsQuery(type=OLD_TYPE)),
        "events: tenant with few": partial(
            events.page, ALL, EventsQuery(tenant=seeded.tiny_tenant)
        ),
        "events: label, rare": partial(
            events.page, ALL, EventsQuery.of(label=["=".join(seeded.rare_label)])
        ),
        "events: label, common": partial(events.page, ALL, EventsQuery.of(label=["warehouse=BKK"])),
        "events: label that nothing has": partial(
            events.page, ALL, EventsQuery.of(label=["no=such"])
        ),
        "events: until, old": partial(events.page, ALL, EventsQuery(until=old)),
        "event: show": partial(events.show, ALL, seeded.old_event),
        "event: explain": partial(Explainer(deployment).explain, ALL, seeded.old_event),
        "endpoints: newest": partial(endpoints.page, ALL),
        "endpoint: what waits": partial(endpoints.waiting, ALL, seeded.big_endpoint),
        "overview": partial(overview.summary, ALL),
        "overview of a tenant": partial(overview.summary, Actor(name="b", tenant="default")),
        "overview of 50 endpoints": partial(overview.of_endpoints, ALL, seeded.endpoints[:50]),
        "system": partial(System(deployment).show, ALL),
    }
    return found


async def _tenth(deliveries: DeliveryOperations, wanted: Mapping[str, Any]) -> object:
    """Returns the tenth page; the cursor before it is found once and remembered."""
    key = str(sorted(wanted))
    if key not in _cursors:
        cursor = None
        for _ in range(9):
            query = DeliveriesQuery.of(**wanted, limit=500, cursor=cursor)
            cursor = (await deliveries.page(ALL, query)).next_cursor
        _cursors[key] = cursor
    return await deliveries.page(ALL, DeliveriesQuery.of(**wanted, cursor=_cursors[key]))


_cursors: dict[str, str | None] = {}


async def ask(found: Mapping[str, Question], rounds: int) -> dict[str, list[float]]:
    """Asks everything in turns, once to warm up; returns the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        for name, question in found.items():
            started = time.perf_counter()
            try:
                await question()
            except NotFoundError as error:
                raise SystemExit(f"{name}: {error}") from error
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


async def _run(url: str, given: argparse.Namespace) -> tuple[Seeded, dict[str, list[float]]]:
    """Seeds and asks."""
    connection = await asyncpg.connect(url)
    started = time.perf_counter()
    seeded = await seed(connection, given.deliveries)
    if given.backlog:
        await seed_backlog(connection, given.backlog)
    await connection.close()
    print(
        f"seeded {seeded.deliveries_count:,} in {time.perf_counter() - started:.0f} s\n", flush=True
    )
    database = Database(url, connections_max=2)
    await database.open()
    key = base64.b64encode(harness.KEY).decode()
    settings = load_settings(
        None, {"DISPATCHER_DATABASE_URL": url, "DISPATCHER_SECRET_KEYS": f"k1:{key}"}
    )
    try:
        return seeded, await ask(questions(deployment_of(settings, database), seeded), given.rounds)
    finally:
        await database.close()


NOISE_MILLISECONDS: Final = 5.0
"""A page counts as slower if its 95th percentile is a fifth and so much above the other's."""


def compare(given: argparse.Namespace) -> None:
    """Reads the pages of two versions in turns, and prints both 95th percentiles and their ratio."""
    with (
        checkouts([given.against]) as versions,
        harness.postgres() as (server, _),
        tempfile.TemporaryDirectory() as name,
        ExitStack() as running,
    ):
        other = versions[-1].name
        contenders = {
            other: Contender("theirs", server, Path(name), versions[-1]),
            "ours": Contender("ours", server, Path(name)),
        }
        sites: dict[str, tuple[str, dict[str, str]]] = {}
        absent: set[str] = set()
        for kind, contender in contenders.items():
            wanted = paths(contender.seed(given.deliveries), datetime.now(UTC))
            daemon = running.enter_context(contender.running(cpu=None))
            absent |= uvloop.run(console.missing(daemon.origin, wanted))
            sites[kind] = daemon.origin, wanted
        for _, wanted in sites.values():
            for page in absent:
                del wanted[page]
        seconds = uvloop.run(console.ask(sites, given.rounds))
    print(f"not in both: {', '.join(sorted(absent)) or 'none'}; load {os.getloadavg()[0]:.1f}")
    figures = {
        name: {kind: _figures(values[name]) for kind, values in seconds.items()}
        for name in seconds["ours"]
    }
    slower = []
    for name, one in figures.items():
        ours, theirs = one["ours"]["p95_ms"], one[other]["p95_ms"]
        is_slower = ours > theirs * 1.2 and ours - theirs > NOISE_MILLISECONDS
        slower += [name] if is_slower else []
        mark = "  slower" if is_slower else ""
        medians = one[other]["p50_ms"], one["ours"]["p50_ms"]
        print(
            f"{name:<40} p50 {medians[0]:7.1f} {medians[1]:7.1f} ms, {medians[1] / medians[0]:5.2f}"
            f"  p95 {theirs:7.1f} {ours:7.1f} ms, {ours / theirs:5.2f}{mark}"
        )
    harness.write_results(
        "pages_against",
        {
            "deliveries": given.deliveries,
            "rounds": given.rounds,
            "against": other,
            "not_in_both": sorted(absent),
            "slower": slower,
            "pages": figures,
        },
        given.json,
        [
            harness.Goal(
                9, f"pages slower than those of {other}", 0, [len(slower)], at_least=False
            ),
            harness.Goal(
                9,
                f"median of a page over that of {other}, over all pages",
                1.0,
                [one["ours"]["p50_ms"] / one[other]["p50_ms"] for one in figures.values()],
                at_least=False,
            ),
        ],
    )


def main() -> None:
    """Runs it and prints a table."""
    given = harness.arguments(
        "pages",
        __doc__,
        short={"deliveries": 100_000, "backlog": 0, "rounds": 10},
        full={"deliveries": 1_000_000, "backlog": 0, "rounds": 20},
        against=True,
    )
    if given.against:
        compare(given)
        return
    with harness.postgres() as (_, url):
        seeded, seconds = uvloop.run(_run(url, given))
    figures = {name: _figures(values) for name, values in seconds.items()}
    for name, one in figures.items():
        mark = "  over the aim" if one["p95_ms"] > GOAL_MILLISECONDS else ""
        print(f"{name:<48} p50 {one['p50_ms']:8.1f}  p95 {one['p95_ms']:8.1f} ms{mark}")
    harness.write_results(
        "pages",
        {
            "deliveries": seeded.deliveries_count,
            "backlog": given.backlog,
            "rounds": given.rounds,
            "aim_p95_ms": GOAL_MILLISECONDS,
            "questions": figures,
        },
        given.json,
    )


def _figures(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p95_ms": round(ordered[max(0, -(-95 * len(ordered) // 100) - 1)] * 1000, 2),
        "max_ms": round(ordered[-1] * 1000, 2),
    }


if __name__ == "__main__":
    main()
