"""What pages ask of the database: a bounded number of statements however many rows they show, by index."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.store.pool import _BEGIN, Database
from dispatcher.store.statements import statement
from tests.console.conftest import Client, Served
from tests.support.long_history import Seeded, seed

pytestmark = pytest.mark.postgres

DELIVERIES = 4_000
STATEMENTS_MAX = 18
OLDEST = statement("partition_oldest")[:60]
PICKED = statement("delivery_page")[:60]
ROWS_OF = (statement("delivery_list_of_day")[:60], statement("delivery_list_of_ids")[:60])
"""Either reads the rows of a page: that of each of a few days, or that of any days."""
TYPES = statement("connection_types")[:60]
"""What the driver reads once on each connection."""


@pytest.fixture
def database(fresh_database: str) -> str:
    """A database of the test's own: a history has days that no other test expects."""
    return fresh_database


@pytest.fixture
async def seeded(sql: "asyncpg.Connection[Any]") -> Seeded:
    return await seed(sql, DELIVERIES)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts statements by their first words, on every connection of a pool."""
    counted: Counter[str] = Counter()
    opened = Database.connection

    def count(record: Any) -> None:
        if record.query.startswith("--") and record.query[:60] != TYPES:
            counted[record.query[:60]] += 1

    @asynccontextmanager
    async def connection(self: Database) -> AsyncIterator[Any]:
        async with opened(self) as found:
            found.add_query_logger(count)
            try:
                yield found
            finally:
                found.remove_query_logger(count)

    monkeypatch.setattr(Database, "connection", connection)
    return counted


async def test_a_lists_cost_does_not_grow_with_its_rows(
    served: Served, admin: Client, seeded: Seeded, asked: Counter[str]
) -> None:
    del served
    few = f"/deliveries?endpoint_id={seeded.small_endpoint}"
    many = f"/deliveries?endpoint_id={seeded.big_endpoint}"
    seen = {}
    for path in (few, many, "/webhooks", "/webhooks?q=none", "/events", "/"):
        asked.clear()
        answer = await admin.get(path)
        assert answer.status == 200
        seen[path] = dict(asked)
    assert (await admin.get(many)).text.count("<tr data-id") == 20
    # A list that two days do not fill reads a month as well, and where history begins (store/day_walk.py).
    assert seen[few].pop(OLDEST, 0) <= 1
    assert OLDEST not in seen[many]
    assert seen[few].pop(PICKED) <= 2
    assert seen[many].pop(PICKED) == 1
    for path in (few, many):
        assert 1 <= sum(seen[path].pop(name, 0) for name in ROWS_OF) <= 2
    assert seen[few] == seen[many]
    assert 0 < max(sum(one.values()) for one in seen.values()) <= STATEMENTS_MAX, seen


async def explain(url: str, name: str, *parameters: object) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BEGIN)
        await connection.execute(statement("connection_plan"))
        text = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name), *parameters
        )
    finally:
        await connection.close()
    plan: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for child in plan.get("Plans", []) for found in nodes(child))]


async def test_the_plan_of_last_attempts_descends_once_for_each_delivery_and_day(
    database: str, sql: "asyncpg.Connection[Any]", seeded: Seeded
) -> None:
    del seeded
    await sql.execute("ANALYZE dispatcher.attempt; ANALYZE dispatcher.delivery_done")
    rows = await sql.fetch(
        "SELECT id, day, event_id, endpoint_no FROM dispatcher.delivery_done ORDER BY id DESC LIMIT 50"
    )
    owners = dict(await sql.fetch("SELECT number, id FROM dispatcher.endpoint"))
    days = [row["day"] for row in rows]
    plan = await explain(
        database,
        "attempt_last",
        [row["id"] for row in rows],
        days,
        [row["event_id"] for row in rows],
        [owners[row["endpoint_no"]] for row in rows],
        min(days),
        max(days),
    )
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    assert used
    assert not [name for name in used if "by_endpoint" in name or "_endpoint_no_id_" in name], used
    touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    assert touched <= 50 * 3 * 4  # attempt, delivery_done, endpoint with its revision


async def test_the_plan_of_a_pages_rows_has_the_partitions_of_their_days_alone(
    database: str, sql: "asyncpg.Connection[Any]", seeded: Seeded
) -> None:
    """A plan of all days takes Postgres longer than the rows do."""
    del seeded
    rows = await sql.fetch("SELECT id, day FROM dispatcher.delivery_done ORDER BY id DESC LIMIT 20")
    days = [row["day"] for row in rows]
    plan = await explain(
        database, "delivery_list_of_ids", [row["id"] for row in rows], days, min(days), max(days)
    )
    names = {str(node.get("Relation Name", "")) for node in nodes(plan)}
    partitions = {name[-8:] for name in names if name[-8:].isdecimal()}
    assert partitions == {f"{day:%Y%m%d}" for day in days}
    assert plan["Actual Rows"] == len(rows)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 20 * 3 * 5


async def test_the_rows_of_a_page_are_read_by_id_before_a_partition_is_analyzed(
    database: str, sql: "asyncpg.Connection[Any]"
) -> None:
    """Without statistics a day seemed as selective as an id, and each id read its partition from the beginning."""
    await sql.execute(
        """INSERT INTO dispatcher.delivery_done
             (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position)
           SELECT gen_random_uuid(), (now() AT TIME ZONE 'UTC')::date, 'evt_' || n, 1, 1, 3, 1, 0
           FROM generate_series(10000, 11999) AS n"""
    )
    rows = await sql.fetch(
        "SELECT id, day FROM dispatcher.delivery_done ORDER BY event_id DESC LIMIT 20"
    )
    days = [row["day"] for row in rows]
    plan = await explain(
        database, "delivery_list_of_ids", [row["id"] for row in rows], days, min(days), max(days)
    )
    assert plan["Actual Rows"] == len(rows)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 20 * 3 * 5


async def test_the_plan_of_names_reads_by_key(database: str, seeded: Seeded) -> None:
    plan = await explain(database, "endpoint_names", seeded.endpoints[:50], None)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 200
