"""Pages on a long history: every list and every show, with each filter alone and in bad company.

`python -m benchmarks pages [--deliveries N] [--backlog N] [--rounds N] [--json PATH]`. A history of
30 days (`tests/support/long_history.py`) is copied into a durable Postgres, and a backlog of open deliveries if
asked for; then each question is asked `--rounds` times through the operations, in turns, as API,
console and command line ask them. Printed are the median and the 95th percentile of each in
milliseconds; the aim is a 95th percentile of at most 200 on two cores. Further pages follow the
cursor to the tenth page.
"""

import argparse
import base64
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import asyncpg
import uvloop

from benchmarks import harness
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.deployment import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.overview import Overview
from dispatcher.admin.operations.system import System
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings import load_settings
from dispatcher.core.errors import NotFoundError
from dispatcher.store.pool import Database
from tests.support.long_history import (
    OLD_TYPE,
    RARE_TYPE,
    USUAL_TYPE,
    Seeded,
    seed,
    seed_backlog,
)

GOAL_MILLISECONDS: Final = 200.0
ALL: Final = Actor(name="benchmark")

Question = Callable[[], Awaitable[object]]


def questions(deployment: Deployment, seeded: Seeded) -> dict[str, Question]:
    """Returns what is asked, by name."""
    now = deployment.clock.now()
    old = now - timedelta(days=20)
    filters: dict[str, Mapping[str, Any]] = {
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
        "label, rare": {"labels": dict([seeded.rare_label])},
        "label, common": {"label": ["warehouse=BKK"]},
        "label, common, old": {"label": ["warehouse=BKK"], "until": old},
        "label that nothing has": {"labels": {"no": "such"}},
        "search: business key": {"search": seeded.rare_label[1]},
        "search: common value": {"search": "BKK"},
        "search: nothing": {"search": "no such thing"},
        "search: event": {"search": seeded.old_event},
        "search: delivery": {"search": seeded.old_delivery},
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
    deliveries, events = DeliveryOperations(deployment), Events(deployment)
    endpoints, overview = Endpoints(deployment), Overview(deployment)
    found: dict[str, Question] = {
        f"deliveries: {name}": partial(deliveries.page, ALL, DeliveriesQuery.of(**wanted))
        for name, wanted in filters.items()
    }
    found |= {
        "deliveries: tenth page": partial(_tenth, deliveries, {}),
        "deliveries: tenth page, until, old": partial(_tenth, deliveries, {"until": old}),
        "deliveries: tenth page, failed": partial(_tenth, deliveries, {"state": "failed"}),
        "deliveries: count before a resend of failed": partial(
            deliveries.resend_matching, ALL, DeliveriesQuery.of(state="failed"), dry_run=True
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


def main() -> None:
    """Runs it and prints a table."""
    parser = argparse.ArgumentParser(prog="benchmarks pages")
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    parser.add_argument("--backlog", type=int, default=0, help="open deliveries besides")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="where to write the figures")
    given = parser.parse_args()
    with harness.postgres() as (_, url):
        seeded, seconds = uvloop.run(_run(url, given))
    figures = {name: _figures(values) for name, values in seconds.items()}
    for name, one in figures.items():
        mark = "  over the aim" if one["p95_ms"] > GOAL_MILLISECONDS else ""
        print(f"{name:<48} p50 {one['p50_ms']:8.1f}  p95 {one['p95_ms']:8.1f} ms{mark}")
    harness.write_results(
        "pages",
        {
            "at": datetime.now().astimezone().isoformat(timespec="seconds"),
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
