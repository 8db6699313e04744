"""NOTIFY takes a lock across the database at commit: our trigger keeps producers off it while nobody sleeps."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import asyncpg
import pytest

from tests.support.bench import Bench
from tests.support.servers import own_cluster, prepare

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.alone]

WRITERS = 16
COMMITS_EACH = 60
ROUNDS = 5
RATIO_MIN = 0.95 / 2
"""Half of what is promised: a busy machine moves a median of ours to 0.8, the control's is 0.3 to 0.5 (measured).

The promised figure itself is measured by `./run bench producers`.
"""
CONTROL_RATIO_MAX = 0.8
"""The control over ours: 0.6 where nothing else runs. Both shares grow together beside other work."""
CASES = ("outbox_bare", "outbox", "outbox_always")
SLOW_CASES = ("outbox_always", "outbox_bare", "outbox")
"""The outbox comes last: the dispatcher is asleep when its producers begin."""

_TABLES = """
CREATE TABLE dispatcher.outbox_bare (LIKE dispatcher.outbox INCLUDING ALL);
ALTER TABLE dispatcher.outbox_bare ALTER COLUMN bytes SET DEFAULT 0, ALTER COLUMN id
    SET DEFAULT 'evt_2026_' || nextval('dispatcher.event_number');
CREATE TABLE dispatcher.outbox_always (LIKE dispatcher.outbox INCLUDING ALL);
CREATE TRIGGER accept BEFORE INSERT ON dispatcher.outbox_always FOR EACH ROW
    EXECUTE FUNCTION dispatcher.outbox_accept();
CREATE FUNCTION always() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NOTIFY always; RETURN NULL; END';
CREATE TRIGGER notify AFTER INSERT ON dispatcher.outbox_always FOR EACH ROW
    EXECUTE FUNCTION always();
CREATE PROCEDURE commit_events(name text, times int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..times LOOP
        EXECUTE format('INSERT INTO dispatcher.%I (type, data) VALUES (''order.created'', ''{}'')', name);
        COMMIT;
    END LOOP;
END $$;
"""


async def _commits_per_second(writers: Sequence[asyncpg.Connection], table: str) -> float:
    """Lets all commit at once, inside the server, so that no client's speed is measured."""
    await writers[0].execute(
        "TRUNCATE dispatcher.outbox, dispatcher.outbox_bare, dispatcher.outbox_always"
    )
    began_at = time.monotonic()
    async with asyncio.TaskGroup() as crowd:
        for writer in writers:
            crowd.create_task(writer.execute(f"CALL commit_events('{table}', {COMMITS_EACH})"))
    return WRITERS * COMMITS_EACH / (time.monotonic() - began_at)


@pytest.mark.timeout(120)
async def test_producers_are_slowed_by_the_commit_lock_in_the_control_alone(
    say: Callable[[str], None],
) -> None:
    """P7: on a cluster that flushes each commit, as theirs do; the cases take turns in each round."""
    with own_cluster(fsync="on", full_page_writes="on") as server:
        url = await prepare(await asyncio.to_thread(server.start))
        async with contextlib.AsyncExitStack() as open_connections:
            writers = []
            for _ in range(WRITERS):
                writers.append(await asyncpg.connect(url))
                open_connections.push_async_callback(writers[-1].close)
            await writers[0].execute(_TABLES)
            rounds = [
                {table: await _commits_per_second(writers, table) for table in CASES}
                for _ in range(ROUNDS)
            ]
    ours, control = (
        statistics.median(one[table] / one["outbox_bare"] for one in rounds)
        for table in ("outbox", "outbox_always")
    )
    rates = {table: round(statistics.median(one[table] for one in rounds)) for table in CASES}
    say(
        f'{{"id":"P7","rounds":{ROUNDS},"writers":{WRITERS},"ours_over_bare":{ours:.2f},'
        f'"control_over_bare":{control:.2f},"commits_per_second":{list(rates.values())}}}'
    )
    assert ours >= RATIO_MIN
    assert control <= CONTROL_RATIO_MAX * ours, "the lock costs nothing here: this proves nothing"


@pytest.mark.timeout(180)
async def test_intake_on_a_slow_disk_keeps_producers_off_the_lock(
    make_bench: Callable[[str], Bench], say: Callable[[str], None]
) -> None:
    """P42: a commit takes 20 ms, and its NOTIFY would keep all others waiting; their rate is far below `busy`."""
    with own_cluster(
        fsync="on", full_page_writes="on", commit_delay="20000", commit_siblings="0"
    ) as server:
        bench = make_bench(await prepare(await asyncio.to_thread(server.start)))
        async with contextlib.AsyncExitStack() as open_connections:
            writers = []
            for _ in range(WRITERS):
                writers.append(await asyncpg.connect(bench.url))
                open_connections.push_async_callback(writers[-1].close)
            await writers[0].execute(_TABLES)
            await bench.daemon().started()
            rates = {
                table: round(await _commits_per_second(writers, table)) for table in SLOW_CASES
            }
    say(f'{{"id":"P42","writers":{WRITERS},"commits_per_second":{list(rates.values())}}}')
    assert rates["outbox_always"] <= rates["outbox_bare"] / 4, "the lock costs nothing here"
    assert rates["outbox"] >= 2 * rates["outbox_always"]
