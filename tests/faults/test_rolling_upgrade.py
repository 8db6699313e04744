"""F9: two replicas of an earlier version become two of this one, under load, on one database."""

import io
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import CHECKOUT, STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

EARLIER = "3c94696"
"""The last commit that serves the present schema with other code; a commit that changes the schema moves it on."""
ENDPOINTS = 8
STANDSTILL_SECONDS_MAX = 1.0


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """The earlier version's own code, out of the repository's history."""
    archive = subprocess.run(
        ["git", "archive", "--format=zip", EARLIER, "dispatcher", "config"],  # noqa: S607 -- wherever it is installed
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        pytest.skip("the repository's history is not here")
    folder: Path = tmp_path_factory.mktemp("earlier")
    # Not tar: its safe extraction needs Python 3.11.4, and Debian 12 has 3.11.2.
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    # Before the first release migrations are still edited: the earlier code gets the present ones.
    migrations = Path("dispatcher", "store", "migrations")
    shutil.rmtree(folder / migrations)
    shutil.copytree(CHECKOUT / migrations, folder / migrations)
    return folder


def migrate(url: str, code: Path, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "dispatcher", "migrate", *arguments],
        cwd=code,
        env={
            "DISPATCHER_DATABASE_URL": url,
            "PYTHONPATH": str(code),
            "DISPATCHER_HOME": "/nonexistent",
            "PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


async def roll(
    make_bench: Callable[[str], Bench],
    url: str,
    old_code: Mapping[str, str],
    *,
    rate: int,
    answers_each: int,
) -> float:
    """Replaces two replicas one after the other under load; returns the longest time without an answer, in seconds."""
    bench = make_bench(url)
    sql = await asyncpg.connect(url)
    try:
        bench.receiver.behave(**{f"hook{n}": {"secret": STANDARD_SECRET} for n in range(ENDPOINTS)})
        for number in range(ENDPOINTS):
            await add_endpoint(
                sql, f"ep_{number}", bench.receiver.url(f"/hook{number}"), shard=number * 8
            )
        old = [bench.daemon(name=name, process_environ=dict(old_code)) for name in ("one", "two")]
        for daemon in old:
            await daemon.started(30)

        async def both_hold() -> bool:
            count = await sql.fetchval("SELECT count(DISTINCT owner) FROM dispatcher.shard")
            return bool(count == 2)

        await until(both_hold, seconds=30, what="both replicas hold shards")
        producer = bench.produce(Plan(url=url, events_count=100_000, events_per_second=rate))
        await bench.receiver.received(50)
        migrate(url, CHECKOUT, "--phase", "pre")
        for daemon, name in zip(old, ("one", "two"), strict=True):
            seen = bench.receiver.count("answer")
            daemon.kill(signal.SIGTERM)
            assert await daemon.ended(40) == 0
            await bench.daemon(name=name).started(30)
            # As upgrading.md tells: the next one only once this one has its share.
            await until(both_hold, seconds=60, what="the new replica holds shards")
            await bench.receiver.received(seen + answers_each, seconds=60)
        assert producer.child.poll() is None, "the load ended before the upgrade did"
        migrate(url, CHECKOUT, "--phase", "post")
        producer.kill()  # what it was at is settled by asking the database
        await producer.ended(10)
        await quiet(url, seconds=60)
        versions = await sql.fetchval(
            "SELECT count(*) FROM dispatcher.replica WHERE key_ids IS NOT NULL"
        )
        assert versions == 2
        lines = [orjson.loads(line) for line in bench.receiver.record.read_bytes().splitlines()]
        moments = sorted(line["at"] for line in lines if line["kind"] == "answer")
        standstill = max(after - before for before, after in pairwise(moments))
        await bench.report(
            "F9",
            [Subscriber(f"ep_{n}", f"/hook{n}") for n in range(ENDPOINTS)],
            bounds={"dup": 20 * ENDPOINTS},
            standstill_seconds=round(standstill, 2),
        )
        return float(standstill)
    finally:
        await sql.close()


async def test_two_replicas_are_upgraded_one_after_the_other_under_load(
    make_bench, make_database, earlier, long_run
):
    """Lost 0, ghost 0."""
    url = make_database(migrated=False)
    migrate(url, earlier)
    rate, answers_each = (100, 5_000) if long_run else (40, 100)
    await roll(make_bench, url, {"PYTHONPATH": str(earlier)}, rate=rate, answers_each=answers_each)


@pytest.mark.timeout(600)
async def test_rolling_restart_of_this_version_pauses_for_at_most_a_second(
    make_bench, make_database, long_run
):
    if not long_run:
        pytest.skip("a time that a machine busy with other tests cannot keep: --long")
    standstill = await roll(make_bench, make_database(), {}, rate=100, answers_each=5_000)
    assert in_time(standstill, STANDSTILL_SECONDS_MAX)
