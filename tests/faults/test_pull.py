"""Pulled deliveries while a daemon and a client are killed with leases out: nothing lost, lines in order."""

import asyncio
import itertools
from collections import Counter, defaultdict
from typing import Any

import aiohttp
import pytest

from tests.support.daemon import Daemon, add_endpoint, quiet, until
from tests.support.sending import spawn

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ADMIN_TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests
INSERT = """INSERT INTO dispatcher.outbox (id, type, data, ordering_key)
SELECT 'o-' || lpad(n::text, 7, '0'), 'order.updated', json_build_object('n', n), 'key-' || n % $3
FROM generate_series($1::int, $2::int) AS n"""
LEASE_SECONDS = 3


class Pulls:
    """Clients of one endpoint, which poll any daemon that responds, and note what they fetch and acknowledge."""

    def __init__(self, daemons: dict[str, Daemon]) -> None:
        self.daemons = daemons
        self.fetched: list[str] = []
        self.open: dict[str, set[str]] = defaultdict(set)
        """Events by client that it has fetched and not seen acknowledged."""
        self.unsettled: set[str] = set()
        """Events whose lease a kill or a lost response has left open."""

    async def client(self, name: str, endpoint_id: str) -> None:
        """Fetch and acknowledge until cancelled; a cancellation is the kill of the client."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        path = f"/api/v1/endpoints/{endpoint_id}/poll"
        async with aiohttp.ClientSession(headers=headers) as session:
            for turn in itertools.count():
                daemon = list(self.daemons.values())[turn % len(self.daemons)]
                url = f"http://127.0.0.1:{daemon.port}{path}"
                query = f"?limit=5&wait_seconds=2&lease_seconds={LEASE_SECONDS}"
                try:
                    await self._turn(session, name, url, query)
                except (aiohttp.ClientError, TimeoutError):
                    self.unsettled |= self.open.pop(name, set())
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    self.unsettled |= self.open.pop(name, set())
                    raise

    async def _turn(self, session: aiohttp.ClientSession, name: str, url: str, query: str) -> None:
        async with session.get(url + query, timeout=aiohttp.ClientTimeout(10)) as response:
            response.raise_for_status()
            items: list[dict[str, Any]] = (await response.json())["items"]
        for item in items:
            self.fetched.append(item["event_id"])
            self.open[name].add(item["event_id"])
        if items:
            results = [{"lease_id": item["lease_id"], "response_code": 200} for item in items]
            async with session.post(url, json={"results": results}) as response:
                response.raise_for_status()
                settled = (await response.json())["items"]
            for item, one in zip(items, settled, strict=True):
                if one["status"] == "expired":
                    self.unsettled.add(item["event_id"])
            self.open.pop(name, None)


def _inversions(events: list[str], keys: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    latest: dict[int, int] = defaultdict(int)
    for event_id in events:
        number = int(event_id.removeprefix("o-"))
        if number < latest[number % keys]:
            found.append((latest[number % keys], number))
        latest[number % keys] = max(latest[number % keys], number)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ordering", ["none", "key"])
async def test_pulled_deliveries_survive_kills_of_daemon_and_client(bench, sql, ordering, long_run):
    """Two daemons on one database; one and a client are killed with leases out, and the other goes on."""
    events, keys, kills = (20_000, 200, 6) if long_run else (600, 40, 2)
    await add_endpoint(
        sql, "ep_pulled", "https://pull.invalid/", delivery="pull", ordering=ordering,
        retry_schedule_seconds=[0.5] * 20,
    )  # fmt: skip
    daemons = {
        name: await bench.daemon(name=name, ADMIN_TOKEN=ADMIN_TOKEN).started()
        for name in ("one", "two")
    }
    pulls = Pulls(daemons)
    clients = {
        name: spawn(pulls.client(name, "ep_pulled")) for name in ("first", "second", "third")
    }

    async def produce() -> None:
        for first in range(1, events + 1, 20):
            await sql.execute(INSERT, first, min(first + 19, events), keys)

    producing = spawn(produce())
    for number in range(1, kills + 1):

        async def leased(aim: int = events * number // (kills + 2)) -> bool:
            return len(pulls.fetched) >= aim and bool(pulls.open)

        await until(leased, seconds=120, what="leases", pause=0.001)
        busy = next(client for client in pulls.open if client in clients)
        clients.pop(busy).cancel()
        clients[f"{busy}+"] = spawn(pulls.client(f"{busy}+", "ep_pulled"))
        name = ("one", "two")[number % 2]
        daemons[name].kill()
        await daemons[name].ended(5)
        daemons[name] = await bench.daemon(name=name, ADMIN_TOKEN=ADMIN_TOKEN).started(60)
    await producing
    await quiet(bench.url, seconds=120)
    for client in clients.values():
        client.cancel()
    await asyncio.wait(clients.values())

    numbers = [int(one.removeprefix("o-")) for one in pulls.fetched]
    assert set(numbers) == set(range(1, events + 1)), "lost"
    repeated = {one for one, count in Counter(pulls.fetched).items() if count > 1}
    assert repeated <= pulls.unsettled, (
        "a delivery was returned again although its lease was settled"
    )
    if ordering == "key":
        assert _inversions(pulls.fetched, keys) == []
    states = await sql.fetch("SELECT state, count(*) AS n FROM dispatcher.delivery GROUP BY state")
    assert {row["state"]: row["n"] for row in states} == {"succeeded": events}
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.pull_lease") == 0


async def test_a_commit_wakes_a_poll_and_results_are_counted(bench, sql):
    """The long poll returns long before it reads again by itself, and `/metrics` has the attempts."""
    await add_endpoint(
        sql, "ep_pulled", "https://pull.invalid/", delivery="pull", retry_schedule_seconds=[0.1]
    )
    daemon = await bench.daemon(name="one", ADMIN_TOKEN=ADMIN_TOKEN).started()
    url = f"http://127.0.0.1:{daemon.port}/api/v1/endpoints/ep_pulled/poll"
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(headers=headers) as session:

        async def poll() -> tuple[float, list[dict[str, Any]]]:
            async with session.get(f"{url}?wait_seconds=30") as response:
                return loop.time(), (await response.json())["items"]

        for code in (500, 200):
            waiting = asyncio.ensure_future(poll())
            if code == 500:

                async def listens() -> bool:
                    return bool(
                        await sql.fetchval(
                            "SELECT count(*) FROM pg_stat_activity"
                            " WHERE query = 'SELECT 1' AND datname = current_database()"
                        )
                    )

                await until(listens, seconds=10, what="the poll listens")
                await sql.execute(INSERT, 1, 1, 1)
            committed_at = loop.time()
            returned_at, items = await waiting
            assert returned_at - committed_at < 4.0, "it was not woken"
            result = {"lease_id": items[0]["lease_id"], "response_code": code}
            async with session.post(url, json={"results": [result]}) as response:
                assert (await response.json())["items"][0]["status"] == "recorded"
    _, text = await daemon.get("/metrics")
    for line in (
        'dispatcher_attempts_total{outcome="http_error",profile="standard"} 1.0',
        'dispatcher_attempts_total{outcome="ok",profile="standard"} 1.0',
        'dispatcher_deliveries_total{profile="standard",state="succeeded"} 1.0',
    ):
        assert line in text, line
