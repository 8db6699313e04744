"""Several databases on one server, one deployment each: both deliver, and neither touches the other's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


@pytest.fixture
def benches(
    make_database: Callable[[], str], tmp_path: Path, say: Callable[[str], None]
) -> Iterator[list[Bench]]:
    """Two, each with a database and a folder of its own."""
    made = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        made.append(Bench(make_database(), folder, say))
    yield made
    for one in made:
        one.stop()


async def test_deployments_on_one_server_keep_to_their_own_database(benches):
    """Wake-ups, locks and leases are of a database: here both use the same names for all of them."""
    for bench in benches:
        bench.receiver.behave(hook={"secret": STANDARD_SECRET})
        connection = await asyncpg.connect(bench.url)
        await add_endpoint(connection, "ep_x", bench.receiver.url("/hook"))
        await connection.close()
    daemons = [await bench.daemon(name="same").started() for bench in benches]
    for daemon in daemons:

        async def listens(one=daemon) -> bool:
            return bool(await one.metric("dispatcher_listener_up"))

        await until(listens, seconds=10, what="the listener")
    await benches[0].produced(Plan(url=benches[0].url, events_count=20))
    await quiet(benches[0].url, seconds=15)
    assert benches[1].receiver.count("request") == 0
    await benches[1].produced(Plan(url=benches[1].url, events_count=30))
    await quiet(benches[1].url, seconds=15)
    for bench in benches:
        await bench.report("several databases", [Subscriber("ep_x", "/hook")])
    assert [bench.receiver.count("answer") for bench in benches] == [20, 30]
    for daemon in daemons:
        assert daemon.lines("lease.name_rejected") == []
        assert daemon.lines("lease.lost") == []
