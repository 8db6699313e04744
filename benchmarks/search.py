"""What a search in payloads finds in its time budget, and what it costs a drain.

`python -m benchmarks search [--short] [--events N] [--history N] [--rounds N] [--json PATH]`. A history
of events of 400 bytes is stored first. Then texts are searched through the API: one in the newest
events, one that nothing contains and that has digits, one that nothing contains and that is a word. Each
round then drains N events twice with the same daemon: alone, and while searches without a match
follow one another. The aims are a first page within 3 s, and a drain that is at most 5 % slower.
"""

import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import orjson

from benchmarks.drain import SETTINGS, Figures, drain, ratio, save_endpoint
from benchmarks.harness import Dispatcher, Goal, arguments, postgres, receiver, write_results

PAGE_SECONDS_GOAL: Final = 3.2
"""The budget, and the time that it takes to end a slice."""
RATE_GOAL: Final = 0.95
COST_GOAL: Final = 1.05
BATCH: Final = 250_000
TEXTS: Final = {
    "in the newest events": "ord-2026-{newest}",
    "nothing, with digits": "ord-2025-123456",
    "nothing, a word": "nonexistent",
}
_SEED: Final = """
INSERT INTO dispatcher.event (inserted_at, accepted_at, occurred_at, day, data_offset, data_length, id, type, tenant,
                              profile, labels, bytes)
SELECT at, at, at, at::date, octet_length(head), octet_length(data), 'evt_seed_' || n, 'order.created', 'default',
       'wms', '{}', convert_to(head || data || '}', 'UTF8')
FROM (SELECT n, date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + n * interval '1 microsecond' AS at,
             '{"event":"order.created","timestamp":"2026-05-29T14:32:11Z","data":' AS head,
             '{"order_id": "ORD-2026-' || n || '", "customer": {"name": "บริษัท ตัวอย่าง จำกัด"}, "items": [{"sku": "'
             || md5(n::text) || '", "quantity": 3, "location": "A-01-02"}, {"sku": "' || md5((n + 1)::text)
             || '", "quantity": 5, "location": "B-07-11"}], "remark": "deliver before noon", "total": 1250.50}' AS data
      FROM generate_series($1::integer, $2::integer) AS n) AS made
"""


async def seed(url: str, events_count: int) -> None:
    """Stores a history of events on the current day."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET synchronous_commit = off; SET timezone = 'UTC'")
    for first in range(1, events_count + 1, BATCH):
        await connection.execute(_SEED, first, min(first + BATCH - 1, events_count))
    await connection.execute("VACUUM ANALYZE dispatcher.event")
    await connection.close()


def search(daemon: Dispatcher, text: str) -> tuple[float, dict[str, Any]]:
    """Returns the seconds and the page of one search."""
    started = time.perf_counter()
    page = orjson.loads(daemon.request(f"events?{urlencode({'q': text})}"))
    return time.perf_counter() - started, page


@contextmanager
def searches(daemon: Dispatcher) -> Iterator[None]:
    """Searches without a break while the block runs."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                search(daemon, TEXTS["nothing, a word"])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


async def count_since(url: str, at: str | None) -> int:
    """Returns how many events were accepted since then."""
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM dispatcher.event WHERE accepted_at >= $1::text::timestamptz",
                at or "-infinity",
            )
        )
    finally:
        await connection.close()


def main() -> None:
    """Runs the rounds and prints the figures."""
    options = arguments(
        "search",
        __doc__,
        short={"events": 60_000, "history": 1_000_000, "rounds": 3},
        full={"events": 120_000, "history": 10_000_000, "rounds": 5},
    )
    alone: list[Figures] = []
    searched: list[Figures] = []
    pages: dict[str, dict[str, Any]] = {}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(seed(url, options.history))
        asyncio.run(save_endpoint(url, target))
        daemon = Dispatcher(url, Path(name), **SETTINGS)
        daemon.start()
        try:
            for label, text in TEXTS.items():
                seconds, page = search(daemon, text.format(newest=options.history))
                read_count = asyncio.run(count_since(url, page["searched_back_to"]))
                pages[label] = {
                    "seconds": round(seconds, 3),
                    "found": len(page["items"]),
                    "events_read": read_count,
                    "has_next": page["next_cursor"] is not None,
                }
                print(f"{label}: {pages[label]}", flush=True)
            postgres_id = server.process_id or 0
            drain(url, [daemon], target, postgres_id, 5_000)  # warm
            for number in range(1, options.rounds + 1):
                alone.append(drain(url, [daemon], target, postgres_id, options.events))
                with searches(daemon):
                    searched.append(drain(url, [daemon], target, postgres_id, options.events))
                print(
                    f"round {number}: alone {alone[-1]['rate']:,.0f}/s"
                    f"  with searches {searched[-1]['rate']:,.0f}/s",
                    flush=True,
                )
        finally:
            daemon.stop()
    print(f"alone, median: {statistics.median(one['rate'] for one in alone):,.0f}/s")
    write_results(
        "search",
        {
            "events": options.events,
            "history": options.history,
            "pages": pages,
            "alone": alone,
            "searched": searched,
        },
        options.json,
        [
            Goal(
                0,
                "seconds of a first page",
                PAGE_SECONDS_GOAL,
                [one["seconds"] for one in pages.values()],
                at_least=False,
            ),
            Goal(0, "drain rate with searches without a break", RATE_GOAL, ratio(searched, alone)),
            Goal(
                0,
                "CPU a delivery with searches, over that without",
                COST_GOAL,
                [_cost(one) / _cost(two) for one, two in zip(searched, alone, strict=True)],
                at_least=False,
            ),
        ],
    )


def _cost(figures: Figures) -> float:
    return figures["cpu_us"] + figures["postgres_us"]


if __name__ == "__main__":
    main()
