"""What a delivery costs Postgres in statements: exact, whatever the machine does."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from dispatcher.core.ids import delivery_id
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.store.deliveries import AttemptRow, Deliveries, MoveRow
from dispatcher.store.outbox import BodyRow, DeliveryRow, Outbox
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BATCH = 500
STATEMENTS_PER_DELIVERY_MAX = 0.02


class Counting:
    """A connection that counts what is asked of it; whatever waits for an answer is a statement."""

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


async def fan_out(url: str, pool: CountingDatabase) -> list[DeliveryRow]:
    """Takes a batch of events through, each for one endpoint."""
    sql = await asyncpg.connect(url)
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT 'a.b', '{}' FROM generate_series(1, $1::int)",
        BATCH,
    )
    await sql.execute("UPDATE dispatcher.shard SET owner = 'me', token = 7 WHERE shard = 5")
    await sql.close()
    async with Outbox(pool).claim(BATCH, 1 << 24) as claim:
        rows = [
            DeliveryRow(
                delivery_id(1_790_000_000_000, event.id, "ep"),
                claim.day,
                event.id,
                EndpointId("ep"),
                event.type,
                "default",
                "wms",
                None,
            )
            for event in claim.events
        ]
        bodies = [BodyRow(claim.day, event.id, "wms", b"{}") for event in claim.events]
        await claim.write(bodies, rows, [])
    return rows


def moves_and_attempts(rows: list[DeliveryRow]) -> tuple[list[MoveRow], list[AttemptRow]]:
    moves = [MoveRow(5, row.id, 1, "succeeded", None, 1, None) for row in rows]
    attempts = [
        AttemptRow(
            row.day, DeliveryId(row.id), 1, "scheduled", "ok", None, AT, 0.1, None, None, 0.1, 0.0, True,
            "127.0.0.1", "http://x.test/", 200, None, None,
        )
        for row in rows
    ]  # fmt: skip
    return moves, attempts


async def test_a_batch_is_five_statements_for_its_fan_out_and_four_for_its_results(
    database: str, counting: CountingDatabase
):
    rows = await fan_out(database, counting)
    assert counting.asked == {"execute": 2, "fetch": 1, "copy_records_to_table": 2}
    counting.asked.clear()
    recorded = await Deliveries(counting).record(*moves_and_attempts(rows), {5: 7})
    assert not recorded.fenced | recorded.late
    assert counting.asked == {"execute": 2, "fetch": 1, "copy_records_to_table": 1}
    assert (5 + 4) / BATCH < STATEMENTS_PER_DELIVERY_MAX


async def test_a_look_at_the_outbox_is_one_statement(counting: CountingDatabase):
    await Outbox(counting).poll()
    assert counting.asked.total() == 1


async def test_a_delivery_that_succeeds_at_once_leaves_four_rows(
    database: str, counting: CountingDatabase
):
    """Event, body, delivery and attempt: a fifth would be seen here before it is seen in a benchmark."""
    rows = await fan_out(database, counting)
    await Deliveries(counting).record(*moves_and_attempts(rows), {5: 7})
    tables = await counting.fetch(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace"
        " AND (relkind = 'p' OR relkind = 'r' AND NOT relispartition)"
    )
    filled = set()
    for table in tables:
        name = table["relname"]
        count = await counting.fetch_value(f"SELECT count(*) FROM dispatcher.{name}")
        if count >= BATCH:
            filled.add((name, count))
    assert filled == {(name, BATCH) for name in ("event", "body", "delivery_done", "attempt")}
