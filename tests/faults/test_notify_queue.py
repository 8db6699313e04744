"""The queue of notifications fills behind a listener that stays in a transaction: producers commit all the same."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from dispatcher.dev.postgres import Postgres
from dispatcher.dev.postgres_binaries import PostgresError
from dispatcher.store.migrate import migrate, set_notify
from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

PAGES = 64
"""The least that Postgres allows: half a mebibyte. By default it is 8 GiB."""
SETTING_SINCE = 17
ALERT_RATIO = 0.1
"""Above it `DispatcherNotifyQueueFills` fires."""


@pytest.fixture
def server() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-fault-"))
    folder.chmod(0o711)
    postgres = Postgres(
        folder / "data", durable=False, settings={"max_notify_queue_pages": str(PAGES)}
    )
    yield postgres
    with contextlib.suppress(Exception):
        postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def _fill(sql: asyncpg.Connection) -> int:
    """Notifies until Postgres refuses; returns how often it did not."""
    for count in range(10 * PAGES):
        try:
            await sql.execute("SELECT pg_notify('filler', $1)", f"{count:07}".ljust(7_900, "x"))
        except asyncpg.ProgramLimitExceededError:
            return count
    raise AssertionError("the queue never filled: this proves nothing")


@pytest.mark.slow
async def test_full_notify_queue_fails_no_producer_and_delays_by_a_poll(
    server: Postgres, make_bench: Callable[[str], Bench]
) -> None:
    """P6. The control is the plain NOTIFY beside it, which fails."""
    try:
        url = await asyncio.to_thread(server.start)
    except PostgresError as error:
        pytest.skip(f"max_notify_queue_pages is a setting since Postgres {SETTING_SINCE}: {error}")
    sql, stuck = await asyncpg.connect(url), await asyncpg.connect(url)
    await migrate(sql)
    await set_notify(sql, wanted=True)
    bench = make_bench(url)
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon().started()
    await stuck.execute("LISTEN filler")
    await stuck.execute("BEGIN")
    await stuck.fetchval("SELECT 1")
    notified = await _fill(sql)
    usage = await sql.fetchval("SELECT pg_notification_queue_usage()")
    assert usage > 0.5
    await bench.produced(Plan(url=url, events_count=100, events_per_second=50, writers=4))
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await sql.execute("SELECT pg_notify('filler', $1)", "y" * 7_900)
    await quiet(url, seconds=10)
    longest = await sql.fetchval(
        "SELECT max(extract(epoch FROM accepted_at - inserted_at))::float8 FROM dispatcher.event"
    )
    gauge = await daemon.metric("dispatcher_notify_queue_usage_ratio")
    await bench.report(
        "P6",
        [Subscriber("ep_x", "/hook")],
        queue_usage=round(usage, 2),
        queue_usage_gauge=round(gauge, 2),
        notified_until_full=notified,
        pick_up_seconds_max=round(longest, 2),
    )
    assert in_time(longest, 2.5)
    assert gauge > ALERT_RATIO, "no alert would tell"
    await stuck.close()

    async def is_free() -> bool:
        return await daemon.metric("dispatcher_notify_queue_usage_ratio") < ALERT_RATIO

    await until(is_free, seconds=15, what="the gauge to fall once the listener is gone")
    await sql.close()
