"""What a delivery costs Postgres: statements, rows, bytes of WAL and of disk, whatever the machine does.

Statements and rows are exact. Bytes differ by up to 4 % from run to run, because ids of one millisecond come in random
order, and the pages of an index are split where they happen to fall.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import pytest

from dispatcher.core import ids
from dispatcher.core.envelope import encode
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.dev.postgres import Postgres
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.claims import BodyRow, DeliveryRow
from dispatcher.store.jobs import Jobs
from dispatcher.store.migrate import migrate
from dispatcher.store.notifications import Notifications
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Results
from tests.support.words import attempt_row
from tests.wire.vectors import PROFILES

pytestmark = pytest.mark.postgres

BATCH: Final = 500
BATCHES: Final = 40
"""In eight batches, where a page is split decides: 1,098 to 1,155 bytes of disk. In forty, 1,080 to 1,125."""
EVENT_BYTES: Final = 500
STATEMENTS_PER_DELIVERY_MAX: Final = 0.02
WAL_BYTES_MAX: Final = 2_300
DISK_BYTES_MAX: Final = 1_150
ROWS_MAX: Final = 3.1
"""Rows that the dispatcher inserts; the producer's own row in the outbox comes on top."""
ROWS_MAX_FANNED_OUT: Final = 2.1
HISTORY: Final = ("event", "body", "delivery_done", "attempt")


class Counting:
    """A connection that counts what is asked of it; whatever waits for a response is a statement."""

    def __init__(self, connection: Any, asked: Counter[str]) -> None:
        self._connection = connection
        self._asked = asked

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._asked[name] += 1
        method: Callable[..., Any] = getattr(self._connection, name)
        return method


class CountingDatabase(Database):
    """The pool, whose connections count."""

    def __init__(self, url: str) -> None:
        super().__init__(url, connections_max=2)
        self.asked: Counter[str] = Counter()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with super().connection() as connection:
            yield Counting(connection, self.asked)


@pytest.fixture
async def counting(database: str) -> AsyncIterator[CountingDatabase]:
    pool = CountingDatabase(database)
    await pool.open()
    yield pool
    await pool.close()


async def produce(sql: Any, events: int, endpoints: int) -> None:
    """Commits events of `EVENT_BYTES` bytes, and takes every shard."""
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT 'order.created',"
        " json_build_object('order_id', lpad(n::text, 9, '0'), 'note', repeat('x', $2::int - 43))"
        " FROM generate_series(1, $1::int) AS n",
        events,
        EVENT_BYTES,
    )
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " SELECT $2 || n, 'default', $2 || n, 'https://x.test/', 'wms', '{*}', 5"
        " FROM generate_series(1, $1::int) AS n ON CONFLICT DO NOTHING",
        endpoints,
        "ep_01kat9zma1e4gbryhh3m9dq2",
    )
    await sql.execute("UPDATE dispatcher.shard SET owner = 'me', token = 7")


async def fan_out(pool: Database, sql: Any, events: int, endpoints: int = 1) -> list[DeliveryRow]:
    """Takes a batch of events through, each for so many endpoints."""
    targets = await sql.fetch("SELECT id, number FROM dispatcher.endpoint ORDER BY number")
    async with Outbox(pool).claim(events, 1 << 24) as claim:
        assert len(claim.events) == events
        rows = [
            DeliveryRow(
                ids.delivery_id(
                    ids.delivery_unix_ms(event.inserted_at, claim.day), event.id, target["id"]
                ),
                claim.day,
                event.id,
                EndpointId(target["id"]),
                target["number"],
                event.type,
                "default",
                "wms",
                None,
            )
            for event in claim.events
            for target in targets[:endpoints]
        ]
        bodies = [
            BodyRow(claim.day, event.id, "wms", encode(PROFILES["wms"], event).body)
            for event in claim.events
        ]
        await claim.write(bodies, rows, [])
    return rows


def moves_and_attempts(rows: list[DeliveryRow]) -> tuple[list[MoveRow], list[AttemptRow]]:
    moves = [MoveRow(5, row.id, 1, "succeeded", None, 1, None) for row in rows]
    attempts = [
        attempt_row(
            row.day,
            DeliveryId(row.id),
            row.event_id,
            event_type=row.event_type,
            endpoint_no=row.endpoint_no,
        )
        for row in rows
    ]
    return moves, attempts


async def test_a_batch_costs_few_statements(database: str, counting: CountingDatabase):
    sql = await asyncpg.connect(database)
    await produce(sql, BATCH, 1)
    rows = await fan_out(counting, sql, BATCH)
    assert counting.asked == {"execute": 2, "fetch": 1, "copy_records_to_table": 2}
    counting.asked.clear()
    recorded = await Results(counting).record(*moves_and_attempts(rows), {5: 7})
    assert not recorded.fenced | recorded.late
    assert counting.asked == {"fetch": 1}
    assert (5 + 1) / BATCH < STATEMENTS_PER_DELIVERY_MAX
    await sql.close()


async def test_a_poll_of_the_outbox_is_one_statement(counting: CountingDatabase):
    outbox = Outbox(counting)
    await (
        outbox.poll()
    )  # the first one also verifies the sequence of event numbers (VERIFY_SECONDS)
    counting.asked.clear()
    await outbox.poll()
    assert counting.asked.total() == 1


@pytest.mark.parametrize(("may_own", "statements"), [(False, 1), (True, 2)])
async def test_jobs_are_read_only_if_there_may_be_some(
    counting: CountingDatabase, may_own: bool, statements: int
):
    assert await Jobs(counting).claim("me", 10.0, 5, may_own=may_own) == []
    assert counting.asked.total() == statements


async def test_a_turn_without_a_rule_of_notifications_is_one_statement(counting: CountingDatabase):
    async with Notifications(counting).turn() as turn:
        assert turn is None
    assert counting.asked.total() == 1


class Costs(NamedTuple):
    """What was measured of some deliveries."""

    rows: Counter[str]
    wal_bytes: int
    disk_bytes: int


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of its own: WAL is counted for a whole cluster."""
    directory = Path(tmp_path_factory.mktemp("costs"))
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o711)
    postgres = Postgres(
        directory / "data",
        durable=False,
        settings={"autovacuum": "off", "max_wal_size": "4GB", "checkpoint_timeout": "1h"},
    )
    postgres.start()
    yield postgres
    postgres.stop()


async def measure(alone: Postgres, events: int, endpoints: int, batches: int = BATCHES) -> Costs:
    url = alone.dsn
    pool = Database(url, connections_max=2)
    await pool.open()
    sql = await asyncpg.connect(url)
    try:
        await sql.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
        await migrate(sql)
        await produce(sql, events * batches, endpoints)
        day = await sql.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        sizes = "SELECT " + " + ".join(
            f"pg_total_relation_size('dispatcher.{table}_{day}')" for table in HISTORY
        )
        inserted = (
            "SELECT regexp_replace(relname, '_[0-9]{8}$', '') AS name, n_tup_ins"
            " FROM pg_stat_user_tables WHERE schemaname = 'dispatcher' AND n_tup_ins > 0"
        )
        await sql.execute("SELECT pg_stat_force_next_flush()")
        rows_before = Counter({r["name"]: r["n_tup_ins"] for r in await sql.fetch(inserted)})
        lsn, disk = (
            await sql.fetchval("SELECT pg_current_wal_insert_lsn()"),
            await sql.fetchval(sizes),
        )
        for _ in range(batches):
            made = await fan_out(pool, sql, events, endpoints)
            await Results(pool).record(*moves_and_attempts(made), {5: 7})
        wal = await sql.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", lsn)
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        await sql.execute("SELECT pg_stat_clear_snapshot()")
        rows = Counter({r["name"]: r["n_tup_ins"] for r in await sql.fetch(inserted)})
        return Costs(rows - rows_before, int(wal), await sql.fetchval(sizes) - disk)
    finally:
        await sql.close()
        await pool.close()


async def test_a_delivery_costs_so_many_rows_and_bytes(alone: Postgres, record_property: Any):
    costs = await measure(alone, BATCH, 1)
    deliveries = costs.rows["delivery_open"]
    assert costs.rows == dict.fromkeys(("event", "delivery_open", "delivery_done"), deliveries)
    rows, wal, disk = (
        costs.rows.total() / deliveries,
        costs.wal_bytes / deliveries,
        costs.disk_bytes / deliveries,
    )
    figures = f"{rows:.2f} rows, {wal:.0f} bytes of WAL, {disk:.0f} bytes of disk per delivery"
    record_property("figures", figures)
    assert rows <= ROWS_MAX, figures
    assert wal <= WAL_BYTES_MAX, figures
    assert disk <= DISK_BYTES_MAX, figures


async def test_a_delivery_of_a_fan_out_of_20_costs_two_rows(alone: Postgres):
    costs = await measure(alone, BATCH // 10, 20)
    deliveries = costs.rows["delivery_open"]
    assert costs.rows.total() / deliveries <= ROWS_MAX_FANNED_OUT
