"""Any role can notify our channels and fill the queue of notifications: neither decides, stops or delays anything."""

import asyncio
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from dispatcher.delivery.pipeline import Pipeline
from dispatcher.dev.postgres import Postgres
from dispatcher.dev.postgres_binaries import PostgresError
from dispatcher.store import migrate, statements
from dispatcher.store.pool import Database
from tests.faults.test_notify_queue import SETTING_SINCE, _fill, server
from tests.support.daemon import add_endpoint
from tests.unit.test_traffic_counts import World

__all__ = ["server"]

TINY_MAX = 20_000
CALLS = 300
"""Tiny notifications fit into what large ones leave of the last page, some hundred of them."""


async def _fill_wholly(sql: asyncpg.Connection) -> None:
    await _fill(sql)
    for number in range(TINY_MAX):
        try:
            await sql.execute("SELECT pg_notify('filler', $1)", f"{number}")
        except asyncpg.ProgramLimitExceededError:
            return
    raise AssertionError("the queue never filled: this proves nothing")


@pytest.fixture
async def full(server: Postgres) -> Any:
    """Yields a database whose queue of notifications is full, behind a listener in a transaction."""
    try:
        url = await asyncio.to_thread(server.start)
    except PostgresError as error:
        pytest.skip(f"max_notify_queue_pages is a setting since Postgres {SETTING_SINCE}: {error}")
    sql, stuck = await asyncpg.connect(url), await asyncpg.connect(url)
    await migrate.migrate(sql)
    await add_endpoint(sql, "ep_x", "http://127.0.0.1:9/hook")
    await stuck.execute("LISTEN filler")
    await stuck.execute("BEGIN")
    await stuck.fetchval("SELECT 1")
    await _fill_wholly(sql)
    database = Database(url, connections_max=2)
    await database.open()
    yield database
    await database.close()
    await stuck.close()
    await sql.close()


@pytest.mark.postgres
@pytest.mark.slow
async def test_a_full_queue_fails_no_transaction_of_ours(full: Database) -> None:
    """A claim that other replicas hear of failed at COMMIT, as if its events were at fault, and was set aside."""
    for name, parameters in (
        ("delivery_open_notify", ["one"]),
        ("delivery_request_notify", []),
        ("endpoint_breaker_report_test", ["ep_x"]),
        ("shard_release", ["one", [1]]),
        ("replica_leave", ["one"]),
    ):
        async with full.transaction() as connection:
            await connection.execute("UPDATE dispatcher.shard SET owner = 'one'")
            await connection.execute(
                "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
                " VALUES ('one', 'one', '1', now()) ON CONFLICT DO NOTHING"
            )
            await connection.execute(statements.statement(name), *parameters)
    for _ in range(CALLS):
        async with full.transaction() as connection:
            await connection.execute("UPDATE dispatcher.endpoint SET updated_at = now()")


@pytest.mark.postgres
@pytest.mark.slow
async def test_control_a_plain_notification_fails_the_commit(full: Database) -> None:
    async def notify_often() -> None:
        for _ in range(CALLS):
            async with full.transaction() as connection:
                await connection.execute("SELECT pg_notify('dispatcher_arrived', 'one')")

    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await notify_often()


def test_every_notification_of_ours_looks_at_the_queue_first() -> None:
    texts = {name: statements.statement(name) for name in statements.names()}
    notifying = {name for name, text in texts.items() if "pg_notify(" in text}
    assert notifying - {"listener_prove"} == {
        name for name, text in texts.items() if "pg_notification_queue_usage() < 0.5" in text
    }


@pytest.mark.parametrize("payload", ["tested:ep_x", "tested", "shards", "", "x" * 7_999])
def test_a_forged_notification_prompts_a_look_and_nothing_else(payload: str) -> None:
    calls: list[str] = []

    def prompt(name: str) -> Any:
        return SimpleNamespace(poll_now=lambda: calls.append(name))

    pipeline: Any = SimpleNamespace(
        shards=prompt("shards"), traffic=prompt("traffic"), intake=prompt("intake")
    )
    Pipeline._on_control(pipeline, payload)
    assert calls[-1] == "intake"


async def test_a_flood_of_prompts_flushes_a_few_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    flushes = 0
    flush = world.traffic.flush

    async def counted() -> None:
        nonlocal flushes
        flushes += 1
        await flush()

    monkeypatch.setattr(world.traffic, "flush", counted)
    running = asyncio.get_running_loop().create_task(world.traffic.run())
    for _ in range(200):
        world.traffic.poll_now()
        await asyncio.sleep(0.001)
    world.traffic.stop()
    await running
    assert flushes <= 3
