"""Order by key with two replicas that are killed: no event of a key is sent before an earlier one has ended."""

import random
from collections import defaultdict

import pytest

from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.sending import spawn

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

INSERT = """INSERT INTO dispatcher.outbox (id, type, data, ordering_key)
SELECT 'o-' || lpad(n::text, 7, '0'), 'order.updated', json_build_object('n', n), 'key-' || n % $3
FROM generate_series($1::int, $2::int) AS n"""


def _number(event_id: str) -> int:
    return int(event_id.removeprefix("o-"))


def _inversions(events: list[str], keys: int) -> list[tuple[int, int]]:
    """Returns each request of a key that came after one of a later event of that key."""
    found: list[tuple[int, int]] = []
    latest: dict[int, int] = defaultdict(lambda: -1)
    for event_id in events:
        number = _number(event_id)
        key = number % keys
        if number < latest[key]:
            found.append((latest[key], number))
        latest[key] = max(latest[key], number)
    return found


def test_an_inversion_is_counted():
    assert _inversions(["o-0000001", "o-0000011", "o-0000001", "o-0000002"], 10) == [(11, 1)]


@pytest.mark.slow
@pytest.mark.timeout(2_400)
async def test_keys_stay_in_order_across_kills_and_retries(bench, sql, long_run):
    """100,000 events over 1,000 keys with `--long`; some receivers' responses are failures, which are retried."""
    events, keys, kills = (100_000, 1_000, 20) if long_run else (1_500, 100, 2)
    chance = random.Random(17)  # noqa: S311 -- the moments of a fixed seed
    receiver = bench.receiver
    receiver.behave(
        ordered={
            "secret": STANDARD_SECRET,
            "delay_seconds": [0.001, 0.01],
            "statuses": [503, 200],
            "share": 0.02,
        }
    )
    await add_endpoint(
        sql,
        "ep_ordered",
        receiver.url("/ordered"),
        max_concurrency=64,
        retry_schedule_seconds=[0.2] * 10,
        ordering="key",
    )
    daemons = {name: await bench.daemon(name=name).started() for name in ("one", "two")}

    async def produce() -> None:
        for first in range(1, events + 1, 50):
            await sql.execute(INSERT, first, min(first + 49, events), keys)

    producing = spawn(produce())
    for number in range(1, kills + 1):
        aim = events * number // (kills + 1)

        async def sent(aim: int = aim) -> bool:
            return bool(receiver.count("request", "/ordered") >= aim)

        await until(sent, seconds=300, what=f"{aim} requests")
        name = chance.choice(sorted(daemons))
        daemons[name].kill()
        await daemons[name].ended(5)
        daemons[name] = await bench.daemon(name=name).started(60)
    await producing
    await quiet(bench.url, seconds=300)
    requests = [one["event_id"] for one in receiver.entries("request", "/ordered")]
    assert _inversions(requests, keys) == []
    assert {_number(event_id) for event_id in requests} == set(range(1, events + 1))
    states = await sql.fetch("SELECT DISTINCT state FROM dispatcher.delivery")
    assert [row["state"] for row in states] == ["succeeded"]
