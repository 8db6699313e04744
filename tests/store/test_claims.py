"""Claims of a few events: read without a lock, then claimed and written in one statement, or left to others."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from dispatcher.core.errors import BatchRefusedError
from dispatcher.core.ids import delivery_ids
from dispatcher.core.model import DeliveryId, EndpointId, EventId
from dispatcher.store.claims import (
    FEW_DELIVERIES_MAX,
    BodyRow,
    CancelledRow,
    Claim,
    DeliveryRow,
)
from dispatcher.store.outbox import FEW_EVENTS_MAX, Outbox
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

pytestmark = pytest.mark.postgres


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def outbox(database: str) -> AsyncIterator[Outbox]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield Outbox(pool)
    await pool.close()


async def _insert(sql: asyncpg.Connection, count: int = 1, **values: str) -> list[str]:
    columns = {"type": "order.created", "data": '{"a": 1}', **values}
    names = ", ".join(columns)
    literals = ", ".join(f"$${value}$$" for value in columns.values())
    rows = await sql.fetch(
        f"INSERT INTO dispatcher.outbox ({names}) SELECT {literals} FROM generate_series(1, {count}) RETURNING id"
    )
    return [row[0] for row in rows]


def _rows(
    claim: Claim, per_event: int = 1, **changes: Any
) -> tuple[list[BodyRow], list[DeliveryRow]]:
    bodies = [
        BodyRow(claim.day, e.id, "wms", b'{"data":' + e.data.encode() + b"}") for e in claim.events
    ]
    pairs = [(event, number) for event in claim.events for number in range(1, per_event + 1)]
    made = delivery_ids([1_800_000_000_000] * len(pairs), [*range(1, len(pairs) + 1)])
    row = DeliveryRow(
        made[0],
        claim.day,
        EventId(""),
        EndpointId("ep"),
        1,
        "order.created",
        "default",
        "wms",
        None,
    )
    deliveries = [
        row._replace(
            id=i, event_id=event.id, endpoint_id=EndpointId(f"ep{number}"), endpoint_no=number
        )
        for i, (event, number) in zip(made, pairs, strict=True)
    ]
    return bodies, [one._replace(**changes) for one in deliveries]


async def _count(sql: asyncpg.Connection, table: str) -> int:
    return int(await sql.fetchval(f"SELECT count(*) FROM dispatcher.{table}"))


async def test_claim_few_writes_events_and_deliveries_together(sql, outbox):
    ids = await _insert(sql, 3, labels='{"region": "th"}', ordering_key="k")
    async with outbox.claim_few(10) as claim:
        assert [event.id for event in claim.events] == ids
        assert await _count(sql, "event") == 0, "nothing is claimed yet"
        await claim.write(*_rows(claim, 2), [])
    assert claim.lost == frozenset()
    assert await _count(sql, "outbox") == 0
    assert await _count(sql, "delivery_open") == 6
    event = await sql.fetchrow("SELECT * FROM dispatcher.event WHERE id = $1", ids[0])
    assert (event["labels"], event["ordering_key"], event["bytes"]) == (
        '{"region": "th"}', "k", b'{"data":{"a": 1}}',
    )  # fmt: skip
    assert (event["data"], event["data_offset"], event["data_length"]) == (None, 8, 8)
    due = await sql.fetchval("SELECT next_attempt_at FROM dispatcher.delivery_open LIMIT 1")
    assert timedelta(0) <= due - event["accepted_at"] < timedelta(seconds=5)


async def test_claim_few_reads_the_oldest_up_to_its_bounds(sql, outbox):
    ids = await _insert(sql, FEW_EVENTS_MAX + 2)
    async with outbox.claim_few(100) as claim:
        assert [event.id for event in claim.events] == ids[:FEW_EVENTS_MAX]
        await claim.write([], [], [])
    async with outbox.claim_few(1) as claim:
        assert [event.id for event in claim.events] == ids[FEW_EVENTS_MAX:][:1]
    assert await _count(sql, "event") == FEW_EVENTS_MAX + 1, "written without deliveries as well"


async def test_claim_few_of_an_empty_outbox_writes_nothing(sql, outbox):
    async with outbox.claim_few(10) as claim:
        assert claim.events == []
    assert await _count(sql, "event") == 0


@pytest.mark.parametrize("committed", [True, False], ids=["claimed", "being-claimed"])
async def test_claim_few_leaves_what_another_replica_claims(sql, outbox, committed):
    mine, theirs = await _insert(sql, 2)
    async with outbox.claim_few(10) as claim:
        await claim.write(*_rows(claim, 2), [])
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute("DELETE FROM dispatcher.outbox WHERE id = $1", theirs)
        if committed:
            await transaction.commit()
    assert claim.lost == {theirs}
    if not committed:
        await transaction.rollback()
    assert await _count(sql, "delivery_open") == 2
    assert await sql.fetch("SELECT id FROM dispatcher.event") == [(mine,)]
    assert await _count(sql, "outbox") == (0 if committed else 1)


@pytest.mark.parametrize("with_numbered", [False, True])
async def test_claim_few_remembers_ids_that_producers_gave(sql, outbox, with_numbered):
    await _insert(sql, id="mine")
    if with_numbered:
        await _insert(sql)
    async with outbox.claim_few(10) as claim:
        await claim.write(*_rows(claim), [])
    rows = await sql.fetch("SELECT id, data FROM dispatcher.outbox WHERE consumed_at IS NOT NULL")
    assert rows == [("mine", None)]
    assert await _count(sql, "outbox") == 1


async def _crash_in_claim(outbox: Outbox) -> None:
    async with outbox.claim_few(10) as claim:
        await claim.write(*_rows(claim), [])
        raise RuntimeError("crash")


async def _claim_with_one_id_twice(outbox: Outbox) -> None:
    async with outbox.claim_few(10) as claim:
        bodies, deliveries = _rows(claim)
        await claim.write(bodies, [one._replace(id=deliveries[0].id) for one in deliveries], [])


async def test_claim_few_that_fails_leaves_the_events(sql, outbox):
    await _insert(sql)
    with pytest.raises(RuntimeError, match="crash"):
        await _crash_in_claim(outbox)
    assert await _count(sql, "event") == 0
    assert await _count(sql, "outbox") == 1


async def test_claim_few_with_a_refused_row_writes_nothing(sql, outbox):
    await _insert(sql, 2)
    with pytest.raises(BatchRefusedError):
        await _claim_with_one_id_twice(outbox)
    assert await _count(sql, "event") == await _count(sql, "delivery_open") == 0
    assert await _count(sql, "outbox") == 2


async def test_claim_few_copies_unusual_rows_in_one_transaction(sql, outbox):
    mine, theirs = await _insert(sql, 2)
    async with outbox.claim_few(10) as claim:
        bodies, deliveries = _rows(claim, 2, warnings=("shortened",))
        further = [BodyRow(one.day, one.event_id, "standard", b"{}") for one in bodies]
        end = CancelledRow(
            DeliveryId(""),
            EventId(""),
            EndpointId("ep9"),
            9,
            "order.created",
            "default",
            "wms",
            "endpoint_disabled",
        )
        made = delivery_ids([1_900_000_000_000] * 2, [1, 2])
        cancelled = [
            end._replace(id=i, event_id=e.id) for i, e in zip(made, claim.events, strict=True)
        ]
        await claim.write([*bodies, *further], deliveries, cancelled)
        await sql.execute("DELETE FROM dispatcher.outbox WHERE id = $1", theirs)
    assert claim.lost == {theirs}
    for table, count in (("event", 1), ("body", 1), ("delivery_open", 2), ("delivery_done", 1)):
        assert await _count(sql, table) == count, table
        assert not await sql.fetchval(
            f"SELECT count(*) FROM dispatcher.{table} WHERE {'id' if table == 'event' else 'event_id'} <> $1",
            mine,
        )
    assert await sql.fetchval("SELECT warnings FROM dispatcher.delivery_open LIMIT 1") == [
        "shortened"
    ]


async def test_claim_few_with_a_wide_fan_out_copies_its_rows(sql, outbox):
    await _insert(sql)
    async with outbox.claim_few(10) as claim:
        await claim.write(*_rows(claim, FEW_DELIVERIES_MAX + 1), [])
    assert await _count(sql, "delivery_open") == FEW_DELIVERIES_MAX + 1


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("name", ["outbox_fan_out", "outbox_fan_out_numbered"])
async def test_fan_out_statement_decides_whether_its_commit_waits(sql, waits, name):
    (event_id,) = await _insert(sql)
    await sql.execute("SET synchronous_commit = on")
    async with sql.transaction():
        await _fan_out(sql, event_id, name=name, waits=waits)
        assert await sql.fetchval("SHOW synchronous_commit") == ("on" if waits else "off")
    assert await sql.fetchval("SHOW synchronous_commit") == "on"


async def _fan_out(sql: asyncpg.Connection, event_id: str, *, name: str, waits: bool) -> None:
    now = await sql.fetchval("SELECT now()")
    await sql.fetch(
        statement(name),
        [
            (event_id, now, now, None, None, "a.b", "default", None, "{}", None, None, "{}", None, None)
        ],
        now, now.date(), [], waits, None,
    )  # fmt: skip
