"""Goal 5: one event to 1,000 endpoints, with and without filters, and 1,000 events to 20, beside one event to one.

`python -m benchmarks fanout [--short] [--deliveries N] [--rounds N] [--json PATH]`. Each round: as
many deliveries as events to a single endpoint, as few events to 1,000 endpoints, and as events to
20. All endpoints lead to one receiver, 64 in flight. The body is made once per event and profile.
"""

import asyncio
import tempfile
from pathlib import Path

import asyncpg

from benchmarks.drain import SETTINGS, Figures, drain, ratio, say
from benchmarks.harness import (
    Dispatcher,
    Goal,
    add_endpoint,
    arguments,
    insert_events,
    postgres,
    receiver,
    write_results,
)

FILTERED = "to 1,000 with filters"
WIDTHS = {"ours": 1, "to 1,000": 1_000, FILTERED: 1_000, "to 20": 20}


async def _subscribe(url: str, target_url: str, width: int, *, is_filtered: bool) -> None:
    """Makes `width` endpoints the only ones, each with an expression of its own if they are filtered."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("UPDATE dispatcher.endpoint SET deleted_at = now()")
        others = await connection.fetchval("SELECT count(*) FROM dispatcher.endpoint")
        for one in range(width):
            endpoint_id = await add_endpoint(
                connection, f"fan{others + one}", target_url, concurrency=64 if width == 1 else 10
            )
            if is_filtered:
                await connection.execute(
                    "UPDATE dispatcher.endpoint SET content_filter = $2 WHERE id = $1",
                    endpoint_id, f'data.order_id.startsWith("ORD-") && data.customer != "CUST-{one + 2}"',
                )  # fmt: skip
    await connection.close()


async def _settle(url: str) -> None:
    """Lets an event that matches the new endpoints go through, so that the daemon knows them."""
    connection = await asyncpg.connect(url)
    await insert_events(connection, 1)
    while await connection.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.outbox) OR EXISTS (SELECT FROM dispatcher.delivery_open)"
    ):
        await asyncio.sleep(0.05)
    await connection.close()


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "fanout",
        __doc__,
        short={"deliveries": 10_000, "rounds": 5},
        full={"deliveries": 40_000, "rounds": 5},
    )
    rounds: dict[str, list[Figures]] = {name: [] for name in WIDTHS}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        daemon = Dispatcher(url, Path(name), **SETTINGS)
        daemon.start()
        try:
            for number in range(1, options.rounds + 1):
                for kind, width in WIDTHS.items():
                    asyncio.run(_subscribe(url, target.url, width, is_filtered=kind == FILTERED))
                    asyncio.run(_settle(url))
                    rounds[kind].append(
                        drain(
                            url, [daemon], target, server.process_id or 0,
                            options.deliveries // width, width,
                        )
                    )  # fmt: skip
                say(number, rounds)
        finally:
            daemon.stop()
    goals = [
        Goal(
            5, f"one event {kind}: deliveries/s over one to one", 0.8, ratio(values, rounds["ours"])
        )
        for kind, values in rounds.items()
        if kind not in {"ours", FILTERED}
    ]
    filtered = ratio(rounds[FILTERED], rounds["to 1,000"])
    goals.append(
        Goal(5, "one event to 1,000 with filters: deliveries/s over without", 0.5, filtered)
    )
    write_results(
        "fanout", {"deliveries": options.deliveries, "rounds": rounds}, options.json, goals
    )


if __name__ == "__main__":
    main()
