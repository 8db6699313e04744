"""The routing table on Postgres: a refresh loads what changed and nothing else, and no claim is ahead of it."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.addresses import DEFAULT_PORTS
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import EndpointId, Event, EventId, Reason
from dispatcher.core.sealing import Keyring
from dispatcher.delivery import routing
from dispatcher.delivery.routing import RoutingTable
from dispatcher.outbound.pool import Target
from dispatcher.store.pool import Database
from dispatcher.store.routing import EndpointRow, Endpoints, RoutingChanges

pytestmark = pytest.mark.postgres

KEYRING = Keyring({"k1": b"k" * 32})
SETTINGS = load_settings(None, {})
PROFILES = load_profiles(SETTINGS.directories_for("profiles")).profiles
AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class WatchedRouting(Endpoints):
    """Keeps which endpoints each statement loads; can be refused, and can be another server."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.loads: list[list[EndpointId]] = []
        self.loads_until_refused: int | None = None
        self.started_later = timedelta(0)

    async def changes(self, since_version: int | None) -> RoutingChanges:
        found = await super().changes(since_version)
        return found._replace(server_started_at=found.server_started_at + self.started_later)

    async def load(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        if self.loads_until_refused == 0:
            self.loads_until_refused = None
            raise StoreUnavailableError("away")
        if self.loads_until_refused is not None:
            self.loads_until_refused -= 1
        self.loads.append(list(endpoint_ids))
        return await super().load(endpoint_ids)


class ForgetfulRouting(WatchedRouting):
    """Control: skips the oldest of several changes."""

    async def changes(self, since_version: int | None) -> RoutingChanges:
        found = await super().changes(since_version)
        several = since_version is not None and len(found.endpoint_ids) > 1
        return found._replace(endpoint_ids=found.endpoint_ids[1:]) if several else found


class Table:
    """A routing table, and what it did."""

    def __init__(self, store: WatchedRouting) -> None:
        self.store = store
        self.now = AT
        self.dropped: list[str] = []
        self.changed: list[EndpointId] = []
        client: Any = SimpleNamespace(
            policy=SimpleNamespace(allow_ports=DEFAULT_PORTS),
            make_target=lambda url, _, label, __=None: Target(
                "http", url.host, url.port, label=label
            ),
            drop_target=lambda target: self.dropped.append(target.label),
        )
        self.routing = RoutingTable(
            store, SETTINGS, client, KEYRING, profiles=PROFILES, version="1", now=lambda: self.now
        )
        self.routing.changed = self.changed.extend

    async def refresh(self) -> list[EndpointId]:
        """Refresh; return the endpoints that were loaded."""
        self.store.loads.clear()
        await self.routing.refresh()
        return [endpoint_id for ids in self.store.loads for endpoint_id in ids]

    def contents(self) -> dict[str, tuple[object, ...]]:
        """Return all that decides what is sent, and to whom, by endpoint."""
        event = Event(EventId("e"), "order.created", "{}", "default", AT, AT, {}, None)
        routed = {endpoint.id for endpoint in self.routing.route(event)}
        return {
            str(e.id): (
                e.number, e.revision, e.tenant, e.url, e.state, e.subscription, e.rate_limit, e.shard,
                e.problem, e.secrets_change_at, e.id in routed,
                e.template and e.template.head(
                    event_id="e", delivery_id="d", event_type="a.b", timestamp=1, body=b"{}", traceparent=None
                ),
            )
            for e in self.routing.endpoints.values()
        }  # fmt: skip


@pytest.fixture
def table(pool: Database) -> Table:
    return Table(WatchedRouting(pool))


async def add(sql: asyncpg.Connection, *names: str, tenant: str = "default") -> None:
    for name in names:
        await sql.execute(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard, rate_limit)"
            " VALUES ($1, $2, $1, 'https://x.test/' || $1, 'standard', '{order.*}', 3, 1)",
            name, tenant,
        )  # fmt: skip
        await add_secret(sql, name, "current")


async def add_secret(
    sql: asyncpg.Connection, name: str, role: str, expires_at: datetime | None = None
) -> None:
    sealed = KEYRING.seal(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", owner=name, nonce=os.urandom(12)
    )
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed, expires_at)"
        " VALUES ($1, $2, 'k1', $3, $4)",
        name, role, sealed, expires_at,
    )  # fmt: skip


async def contents_loaded_whole(table: Table) -> dict[str, tuple[object, ...]]:
    """Return what a new table holds that loads everything."""
    other = Table(WatchedRouting(table.store._database))
    other.now = table.now
    await other.refresh()
    return other.contents()


# --- what a refresh loads ---


async def test_one_changed_endpoint_is_reloaded_alone(table, sql):
    names = [f"ep_{number:03d}" for number in range(20)]
    await add(sql, *names)
    assert await table.refresh() == names
    before = dict(table.routing.endpoints)
    await sql.execute("UPDATE dispatcher.endpoint SET rate_limit = 7 WHERE id = 'ep_007'")
    table.changed.clear()
    assert await table.refresh() == table.changed == ["ep_007"]
    assert table.routing.endpoints["ep_007"].rate_limit == 7
    assert table.routing.endpoints["ep_007"].target is before["ep_007"].target
    del before["ep_007"]
    assert all(table.routing.endpoints[i] is endpoint for i, endpoint in before.items())
    assert await table.refresh() == []


async def _retire(sql: asyncpg.Connection) -> None:
    await sql.execute("DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_a'")
    await add_secret(sql, "ep_a", "previous", AT + timedelta(hours=1))
    await add_secret(sql, "ep_a", "current")


async def _recreate(sql: asyncpg.Connection) -> None:
    await sql.execute("DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_a'")
    await sql.execute("DELETE FROM dispatcher.endpoint WHERE id = 'ep_a'")
    await add(sql, "ep_a")


def _statement(text: str) -> Callable[[asyncpg.Connection], Awaitable[Any]]:
    return lambda sql: sql.execute(text)


_SET = "UPDATE dispatcher.endpoint SET "
CHANGES: dict[str, Callable[[asyncpg.Connection], Awaitable[Any]]] = {
    "insert": lambda sql: add(sql, "ep_new"),
    "other tenant": lambda sql: add(sql, "ep_other", tenant="acme"),
    "another tenant's now": _statement(_SET + "tenant = 'acme' WHERE id = 'ep_a'"),
    "url": _statement(_SET + "url = 'https://y.test/' WHERE id = 'ep_a'"),
    "event types": _statement(_SET + "event_types = '{stock.*}' WHERE id = 'ep_a'"),
    "paused": _statement(_SET + "state = 'paused', paused_at = now() WHERE id = 'ep_a'"),
    "several": _statement(_SET + "rate_limit = 5 WHERE id <> 'ep_b'"),
    "made unusable": _statement(_SET + "profile = 'nobody' WHERE id = 'ep_a'"),
    "made unreadable": _statement(_SET + """headers = '{"a": 1}' WHERE id = 'ep_a'"""),
    "deleted": _statement(_SET + "deleted_at = now() WHERE id = 'ep_a'"),
    "deleted by hand": _statement(
        "WITH s AS (DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_a')"
        " DELETE FROM dispatcher.endpoint WHERE id = 'ep_a'"
    ),
    "deleted and made again": _recreate,
    "renamed by hand": _statement(
        "DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_a';"
        " UPDATE dispatcher.endpoint SET id = 'ep_z' WHERE id = 'ep_a'"
    ),
    "secret added": lambda sql: add_secret(sql, "ep_a", "previous", AT + timedelta(hours=1)),
    "secret rotated": _retire,
    "secret deleted": _statement(
        "DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_a'"
    ),
    "secret damaged": _statement(
        "UPDATE dispatcher.endpoint_secret SET sealed = 'x' WHERE endpoint_id = 'ep_a'"
    ),
    "secret moved": _statement(
        "DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'ep_b';"
        " UPDATE dispatcher.endpoint_secret SET endpoint_id = 'ep_b' WHERE endpoint_id = 'ep_a'"
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_refresh_after_any_change_equals_a_whole_load(table, sql, kind):
    await add(sql, "ep_a", "ep_b", "ep_c")
    await table.refresh()
    before = table.contents()
    await CHANGES[kind](sql)
    loaded = await table.refresh()
    assert table.contents() == await contents_loaded_whole(table) != before
    assert "ep_c" not in loaded or kind == "several"
    assert table.routing.version == await sql.fetchval("SELECT version FROM dispatcher.routing")
    assert len(table.routing._router._entries) == len(table.routing.endpoints)


async def test_changes_of_many_versions_are_all_found_by_one_refresh(table, sql):
    await add(sql, "ep_a", "ep_b", "ep_c")
    await table.refresh()
    for change in ("several", "url", "secret rotated", "insert", "deleted"):
        await CHANGES[change](sql)
    await table.refresh()
    assert table.contents() == await contents_loaded_whole(table)


async def test_control_a_refresh_that_skips_a_change_differs_from_a_whole_load(pool, sql):
    table = Table(ForgetfulRouting(pool))
    await add(sql, "ep_a", "ep_b", "ep_c")
    await table.refresh()
    for change in ("url", "insert"):
        await CHANGES[change](sql)
    await table.refresh()
    assert table.contents() != await contents_loaded_whole(table)


async def test_a_statement_that_changes_no_row_gives_no_new_version(table, sql):
    await add(sql, "ep_a")
    await table.refresh()
    await sql.execute("UPDATE dispatcher.endpoint SET rate_limit = 7 WHERE id = 'nobody'")
    await sql.execute("DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = 'nobody'")
    assert not table.routing.is_stale(await sql.fetchval("SELECT version FROM dispatcher.routing"))


async def test_deleted_endpoint_drops_connections_and_is_not_unusable(table, sql):
    await add(sql, "ep_a", "ep_b")
    await sql.execute(_SET + "profile = 'nobody' WHERE id = 'ep_b'")
    await table.refresh()
    assert table.routing.unusable == {"ep_b": Reason.UNKNOWN_PROFILE}
    await sql.execute(_SET + "deleted_at = now()")
    await table.refresh()
    assert table.dropped == ["ep_a"]
    assert not table.routing.unusable
    assert not table.routing.endpoints


async def test_an_old_secret_that_expires_reloads_its_endpoint_alone(table, sql):
    await add(sql, "ep_a", "ep_b", "ep_c")
    await add_secret(sql, "ep_a", "previous", AT + timedelta(seconds=10))
    await add_secret(sql, "ep_b", "previous", AT + timedelta(seconds=20))
    await table.refresh()
    version = table.routing.version
    two = table.contents()["ep_a"][-1]
    assert not table.routing.is_stale(version)
    table.now = AT + timedelta(seconds=10)
    assert table.routing.is_stale(version)
    assert await table.refresh() == ["ep_a"]
    assert not table.routing.is_stale(version)
    assert table.contents()["ep_a"][-1] != two
    await sql.execute("DELETE FROM dispatcher.endpoint_secret WHERE role = 'previous'")
    await table.refresh()
    table.now = AT + timedelta(seconds=30)
    assert not table.routing.is_stale(table.routing.version)


# --- what interrupts a refresh, and what makes it a whole load ---


@pytest.mark.parametrize("loads", [0, 1, 2])
async def test_a_refresh_that_fails_midway_is_made_up_by_the_next(table, sql, loads, monkeypatch):
    monkeypatch.setattr(routing, "LOAD_ENDPOINTS_MAX", 2)
    await add(sql, *(f"ep_{name}" for name in "abcdef"))
    await table.refresh()
    version = table.routing.version
    await sql.execute(_SET + "rate_limit = 7")
    await sql.execute(_SET + "deleted_at = now() WHERE id = 'ep_f'")
    table.store.loads_until_refused = loads
    with pytest.raises(StoreUnavailableError):
        await table.refresh()
    assert table.routing.version == version
    await table.refresh()
    assert table.contents() == await contents_loaded_whole(table)
    assert table.routing.version > version


async def test_a_first_load_that_fails_midway_is_whole_the_next_time(table, sql, monkeypatch):
    monkeypatch.setattr(routing, "LOAD_ENDPOINTS_MAX", 2)
    await add(sql, "ep_a", "ep_b", "ep_c")
    table.store.loads_until_refused = 1
    with pytest.raises(StoreUnavailableError):
        await table.refresh()
    assert table.routing.version == 0
    assert await table.refresh() == ["ep_a", "ep_b", "ep_c"]


async def test_a_reload_of_the_settings_during_a_refresh_is_not_lost(table, sql, monkeypatch):
    await add(sql, "ep_a", "ep_b")
    await table.refresh()
    await sql.execute(_SET + "rate_limit = 7 WHERE id = 'ep_a'")
    monkeypatch.setattr(table.routing, "changed", lambda _: table.routing.reconfigure(PROFILES, 33))
    await table.refresh()
    assert table.routing.version == 0
    monkeypatch.setattr(table.routing, "changed", lambda _: None)
    assert await table.refresh() == ["ep_a", "ep_b"]
    assert {e.max_concurrency for e in table.routing.endpoints.values()} == {33}
    assert table.dropped == []


async def test_a_server_that_lost_changes_makes_the_table_load_everything(table, sql):
    """An asynchronous standby takes over: the last change was never replicated to it."""
    await add(sql, "ep_a", "ep_b", "ep_c")
    before = await sql.fetchval("SELECT version FROM dispatcher.routing")
    await sql.execute(_SET + "rate_limit = 7 WHERE id = 'ep_a'")
    await table.refresh()
    lost = table.routing.version
    await sql.execute("SET session_replication_role = replica")
    await sql.execute(_SET + "rate_limit = 1 WHERE id = 'ep_a'")
    await sql.execute("UPDATE dispatcher.endpoint_change SET version = $1", before)
    await sql.execute("UPDATE dispatcher.routing SET version = $1", before)
    await sql.execute("SET session_replication_role = DEFAULT")
    table.store.started_later = timedelta(minutes=1)
    await sql.execute(_SET + "rate_limit = 8 WHERE id = 'ep_b'")
    now = await sql.fetchval("SELECT version FROM dispatcher.routing")
    assert now != lost, "a version that a lost change had would hide the new one"
    assert table.routing.is_stale(now)
    assert await table.refresh() == ["ep_a", "ep_b", "ep_c"]
    assert [e.rate_limit for e in table.routing.endpoints.values()] == [1, 8, 1]


async def test_a_refresh_lets_other_work_run_after_a_bounded_number(table, sql, monkeypatch):
    """20,000 endpoints were compiled in one step of the event loop."""
    monkeypatch.setattr(routing, "COMPILED_PER_SLICE", 3)
    monkeypatch.setattr(routing, "LOAD_ENDPOINTS_MAX", 10)
    await add(sql, *(f"ep_{number}" for number in range(25)))
    counts = [0]
    compile_one = table.routing._compile

    def counted(*arguments: Any) -> Any:
        counts[-1] += 1
        return compile_one(*arguments)

    monkeypatch.setattr(table.routing, "_compile", counted)
    async with asyncio.TaskGroup() as group:
        refresh = group.create_task(table.refresh())
        while not refresh.done():
            counts.append(0)
            await asyncio.sleep(0)
    assert sum(counts) == 25
    assert max(counts) <= 3


async def test_refreshes_of_two_claims_run_one_after_the_other(table, sql):
    """Two claims at once: the older load must not replace what the newer one has loaded."""
    await add(sql, "ep_a", "ep_b")
    table.store.loads.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(table.routing.refresh())
        group.create_task(table.routing.refresh())
    assert table.store.loads == [["ep_a", "ep_b"]]


# --- writers at the same time ---


async def _blocked(sql: asyncpg.Connection, process_id: int) -> None:
    """Wait until a server process waits for a lock."""
    while not await sql.fetchval("SELECT pg_blocking_pids($1)", process_id):
        await sql.execute("SELECT pg_sleep(0.005)")


@asynccontextmanager
async def two_writers(
    database: str,
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    one, other = await asyncpg.connect(database), await asyncpg.connect(database)
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


@pytest.mark.parametrize("first", ["ep_a", "ep_b"])
@pytest.mark.parametrize("commits", [True, False])
async def test_writers_are_found_in_whichever_order_they_commit(
    table, sql, database, first, commits
):
    """A refresh between two commits must not take the later version for granted and miss the earlier change."""
    second = "ep_b" if first == "ep_a" else "ep_a"
    await add(sql, "ep_a", "ep_b")
    await table.refresh()
    async with two_writers(database) as (one, other):
        transaction = one.transaction()
        await transaction.start()
        await one.execute(_SET + "rate_limit = 7 WHERE id = $1", first)
        changing = asyncio.ensure_future(
            other.execute(_SET + "rate_limit = 8 WHERE id = $1", second)
        )
        await _blocked(sql, other.get_server_pid())
        assert await table.refresh() == []
        await (transaction.commit() if commits else transaction.rollback())
        await changing
    await table.refresh()
    found = table.routing.endpoints
    assert (found[first].rate_limit, found[second].rate_limit) == (7 if commits else 1, 8)


async def _change_and_claim(table: Table, database: str, sql: asyncpg.Connection) -> int:
    """Let writers and claims race; return how often the table was behind what a claim could see."""
    names = [f"ep_{number}" for number in range(6)]
    await add(sql, *names)
    await table.refresh()
    behind = 0
    writing = True

    async def write(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 -- a seeded load
        connection = await asyncpg.connect(database)
        for _ in range(40):
            name = chance.choice(names)
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(_SET + "rate_limit = rate_limit + 1 WHERE id = $1", name)
            await connection.execute("SELECT pg_sleep($1)", chance.random() / 500)
            await (transaction.commit() if chance.random() < 0.8 else transaction.rollback())
        await connection.close()

    async def claim() -> None:
        nonlocal behind
        while writing:
            # As a claim does: the version in the snapshot that its events were read in.
            rows = await sql.fetch(
                "SELECT id, rate_limit, (SELECT version FROM dispatcher.routing) AS version FROM dispatcher.endpoint"
            )
            if rows[0]["version"] != table.routing.version:
                await table.routing.refresh()
            behind += sum(
                table.routing.endpoints[row["id"]].rate_limit < row["rate_limit"] for row in rows
            )
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(claim())
        async with asyncio.TaskGroup() as writers:
            for seed in range(4):
                writers.create_task(write(seed))
        writing = False
    await table.refresh()
    return behind + sum(a != b for a, b in zip(
        table.contents().items(), (await contents_loaded_whole(table)).items(), strict=True))  # fmt: skip


async def test_no_claim_sees_an_endpoint_newer_than_the_table(table, database, sql):
    assert await _change_and_claim(table, database, sql) == 0


async def test_control_versions_without_the_lock_let_claims_overtake_the_table(
    pool, fresh_database
):
    """With numbers of a sequence, a later number may be committed first: what has the earlier is missed."""
    pool = Database(fresh_database, connections_max=4)
    await pool.open()
    connection = await asyncpg.connect(fresh_database)
    await connection.execute("CREATE SEQUENCE dispatcher.planted START 2000000000000000")
    await connection.execute(
        """
        CREATE OR REPLACE FUNCTION dispatcher.routing_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO dispatcher.endpoint_change AS c SELECT changed.id, nextval('dispatcher.planted') FROM changed
            ON CONFLICT (endpoint_id) DO UPDATE SET version = EXCLUDED.version;
            RETURN NULL;
        END $$
        """
    )
    await connection.execute("DROP TRIGGER endpoint_secret_inserted ON dispatcher.endpoint_secret")
    store = SequenceRouting(pool)
    table = Table(store)
    await add(connection, "ep_a", "ep_b")
    await table.refresh()
    async with two_writers(fresh_database) as (one, other):
        transaction = one.transaction()
        await transaction.start()
        await one.execute(_SET + "rate_limit = 7 WHERE id = 'ep_a'")
        await other.execute(_SET + "rate_limit = 8 WHERE id = 'ep_b'")
        await table.refresh()
        await transaction.commit()
    await table.refresh()
    assert table.routing.endpoints[EndpointId("ep_b")].rate_limit == 8
    assert table.routing.endpoints[EndpointId("ep_a")].rate_limit == 1, "missed, and never found"
    await connection.close()
    await pool.close()


class SequenceRouting(WatchedRouting):
    """Control: takes the highest number that is committed for the version."""

    async def changes(self, since_version: int | None) -> RoutingChanges:
        found = await super().changes(since_version)
        highest = await self._database.fetch_value(
            "SELECT coalesce(max(version), 1) FROM dispatcher.endpoint_change"
        )
        return found._replace(version=highest)
