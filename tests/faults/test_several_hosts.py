"""Four hosts: two dispatchers, a primary and its standby; partitions, a slow link and a failover under load."""

import asyncio
import shutil

import asyncpg
import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.hosts import network
from tests.support.ledger import Plan
from tests.support.servers import pair, prepare

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ENDPOINTS = 8
EVENTS_PER_SECOND = 40
LEASE_SECONDS = 4
UNRECORDED_MAX = 16
SECONDS_APART = 30
"""Of the clocks of the two dispatchers, where faketime is installed."""


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_hosts_that_are_cut_off_lose_nothing(make_bench, long_run):
    """W1: each replica and then the primary is cut off; one link is slow; a standby takes over."""
    if not long_run:
        pytest.skip("takes a minute; --long runs it")
    with network() as hosts:
        one, two, main, standby, office = (hosts.host() for _ in range(5))
        with pair((main, standby)) as servers:
            servers.first._settings["synchronous_standby_names"] = "b"
            with main.entered():
                servers.first.restart_immediate()
            bench = make_bench(await prepare(servers.url()))
            url, producer_url = (
                f"postgresql://dispatcher@{first.address}:5432,{second.address}:5432/postgres"
                "?target_session_attrs=read-write"
                # The producer's driver has one time limit for all hosts, so it tries the one that stays first.
                for first, second in ((main, standby), (standby, main))
            )
            receiver = bench.receiver_on(office.address, office.prefix)
            names = [f"ep_{number}" for number in range(ENDPOINTS)]
            receiver.behave(**{name: {"secret": STANDARD_SECRET} for name in names})
            connection = await asyncpg.connect(bench.url)
            for number, name in enumerate(names):
                await add_endpoint(
                    connection, name, receiver.url(f"/{name}"), shard=number * 8,
                    retry_schedule_seconds=[0.5] * 20,
                )  # fmt: skip
            clock = (
                [faketime, "-f", f"+{SECONDS_APART}s"]
                if (faketime := shutil.which("faketime"))
                else []
            )
            daemons = {
                name: await bench.daemon(
                    name=name,
                    url=f"{url}&connect_timeout=2",
                    prefix=[*host.prefix, *(clock if name == "b" else ())],
                    process_environ={"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
                    REPLICA__LEASE_SECONDS=str(LEASE_SECONDS),
                    REPLICA__RENEW_SECONDS="1",
                    RECORDER__UNRECORDED_MAX=str(UNRECORDED_MAX),
                    EGRESS__ALLOW_NETWORKS='["198.18.80.0/24"]',
                ).started()
                for name, host in (("a", one), ("b", two))
            }

            async def owners(count: int) -> None:
                async def look() -> bool:
                    query = "SELECT count(DISTINCT owner), bool_and(owner IS NOT NULL) FROM dispatcher.shard"
                    row = await connection.fetchrow(query)
                    return row is not None and tuple(row) == (count, True)

                await until(look, seconds=30, what=f"{count} replicas to own every shard")

            async def progress(count: int) -> None:
                await receiver.received(receiver.count("answer") + count, seconds=60)

            await owners(2)
            producer = bench.produce(
                Plan(
                    url=producer_url, events_count=EVENTS_PER_SECOND * 60, events_per_second=EVENTS_PER_SECOND,
                    writers=4, rolled_back_share=0.05, delay_seconds_max=0.02,
                ),
                prefix=office.prefix,
            )  # fmt: skip
            await progress(500)

            two.slow_down("2mbit")
            await progress(500)
            two.speed_up()

            # A replica that reaches its receivers and not the database: its packets are dropped without an error.
            for host, left in ((one, main), (two, main)):
                hosts.split(host, left)
                await owners(1)
                await progress(500)
                hosts.join(host, left)
                await owners(2)
                await progress(500)

            # The primary is cut off with the standby's acknowledgements: it commits nothing from here on.
            main.set_link("down")
            await asyncio.to_thread(servers.promote)
            await connection.close()
            bench.url = servers.second.dsn
            connection = await asyncpg.connect(bench.url)
            await owners(2)
            await progress(500)
            assert await producer.ended(90) == 0
            await quiet(bench.url, seconds=60)
            await connection.close()
            in_flight = UNRECORDED_MAX * (2 + len(daemons))
            await bench.report(
                "W1", [Subscriber(name, f"/{name}") for name in names],
                bounds={"dup": in_flight, "unrecorded": in_flight},
                clocks_apart_seconds=SECONDS_APART if clock else 0,
            )  # fmt: skip
            assert all(daemon.child.poll() is None for daemon in daemons.values())
