"""Goal 9: whether a long history slows the drain, or the listing of a page.

`python -m benchmarks growth [--short] [--rows N] [--rounds N] [--json PATH]`. Two databases: one as
it is new, one whose history has N deliveries with their events and attempts. Each round: the same
drain on one, then on the other; then 100 readings of the first page of deliveries on each, over the
API. The daemon is started anew for each.
"""

import asyncio
import tempfile
import time
import urllib.request
from pathlib import Path

import asyncpg

from benchmarks.drain import SETTINGS, Figures, drain, ratio, save_endpoint, say
from benchmarks.harness import Dispatcher, Goal, arguments, postgres, receiver, write_results

TOKEN = "a-token-for-the-benchmark-of-32-bytes"  # noqa: S105 -- of a throw-away database
DAYS = 20
PAGES = 100
_FILL = """
WITH row AS (
    SELECT g, (now() AT TIME ZONE 'UTC')::date - (g % $3) AS day,
           now() - (g % $3) * interval '1 day' - random() * interval '1 hour' AS at
    FROM generate_series($1::int, $2::int) AS g
), events AS (
    INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
    SELECT day, 'old' || g, 'order.created', 'default', '{"a": 1}', at, '{}', at, at FROM row
)
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position, finished_at,
     attempted_at, latency_seconds, revision, trigger, outcome, reused, response_code)
SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || substr(md5(g::text), 1, 3)
        || '8' || substr(md5(g::text), 4, 15))::uuid,
       day, 'old' || g, 1000000 + g % 200, 1, 3, 1, 1, at, at, 0.01, 1, 1, 1, true, 200
FROM row
"""
_PARTITIONS = """
DO $$ BEGIN
    FOR back IN 1..30 LOOP
        FOR number IN 1..4 LOOP
            DECLARE
                parent text := (ARRAY['event', 'body', 'delivery_done', 'attempt'])[number];
                day date := (now() AT TIME ZONE 'UTC')::date - back;
                part text := parent || '_' || to_char(day, 'YYYYMMDD');
            BEGIN
                CONTINUE WHEN to_regclass('dispatcher.' || part) IS NOT NULL;
                EXECUTE format('CREATE TABLE dispatcher.%I PARTITION OF dispatcher.%I FOR VALUES FROM (%L) TO (%L)',
                               part, parent, day, day + 1);
            END;
        END LOOP;
    END LOOP;
END $$
"""


async def _make_old(url: str, rows: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_PARTITIONS)
    for first in range(1, rows + 1, 50_000):
        await connection.execute(_FILL, first, min(first + 49_999, rows), DAYS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def _copy(url: str, name: str) -> str:
    """Makes a database like the one of the URL, and returns its URL."""
    connection = await asyncpg.connect(url.replace("/bench", "/postgres"))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE bench")
    await connection.close()
    return url.replace("/bench", f"/{name}")


def _page_seconds(port: int) -> float:
    """Returns the mean time of the first page of deliveries."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/deliveries?limit=50",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    started = time.perf_counter()
    for _ in range(PAGES):
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    return (time.perf_counter() - started) / PAGES


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "growth",
        __doc__,
        short={"rows": 200_000, "events": 10_000, "rounds": 5},
        full={"rows": 10_000_000, "events": 20_000, "rounds": 5},
    )
    rounds: dict[str, list[Figures]] = {"new": [], "ours": []}
    pages: dict[str, list[float]] = {"new": [], "ours": []}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(save_endpoint(url, target))
        urls = {"new": url, "ours": asyncio.run(_copy(url, "old"))}
        asyncio.run(_make_old(urls["ours"], options.rows))
        for number in range(1, options.rounds + 1):
            for kind, one in urls.items():
                daemon = Dispatcher(one, Path(name), DISPATCHER_ADMIN_TOKEN=TOKEN, **SETTINGS)
                daemon.start()
                try:
                    drain(one, [daemon], target, server.process_id or 0, 1_000)  # warm
                    rounds[kind].append(
                        drain(one, [daemon], target, server.process_id or 0, options.events)
                    )
                    _page_seconds(daemon.port)
                    pages[kind].append(_page_seconds(daemon.port))
                finally:
                    daemon.stop()
            say(number, rounds)
    listing = [a / b for a, b in zip(pages["ours"], pages["new"], strict=True)]
    goals = [
        Goal(9, f"drain over {options.rows:,} old deliveries, over none", 0.9, ratio(rounds["ours"], rounds["new"])),
        Goal(9, "first page of deliveries over the same without history", 2, listing, at_least=False),
    ]  # fmt: skip
    write_results(
        "growth",
        {"rows": options.rows, "rounds": rounds, "page_seconds": pages},
        options.json,
        goals,
    )


if __name__ == "__main__":
    main()
