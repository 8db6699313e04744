"""Pages on a history of many days: each filter is answered by index, reads little, and answers rightly.

The short form has 60,000 deliveries, `--long` a million and a bound in seconds. What a page should
hold is asked of the tables by plain SQL without any index.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.delivery_search import DeliverySearch
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.serialization import Place
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.events import requested_events
from dispatcher.store.pool import _BEGIN, Database
from dispatcher.store.statements import statement
from tests.support.cluster import run_apart
from tests.support.long_history import OLD_TYPE, RARE_TYPE, USUAL_TYPE, Seeded, endpoint_id, seed

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ALL = Actor(name="tester")
LIMIT = 51
BIG, SMALL, TINY = endpoint_id(0), endpoint_id(198), "tiny"
OLD = timedelta(days=3)


class Explaining:
    """A connection that explains each statement before it runs it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    async def fetch(self, sql: str, *parameters: object) -> Any:
        text = await self._connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, *parameters
        )
        self.plans.append(orjson.loads(text)[0]["Plan"])
        return await self._connection.fetch(sql, *parameters)

    async def execute(self, sql: str) -> str:
        return str(await self._connection.execute(sql))

    async def fetchval(self, sql: str, *parameters: object) -> Any:
        return await self._connection.fetchval(sql, *parameters)

    async def fetchrow(self, sql: str, *parameters: object) -> Any:
        rows = await self.fetch(sql, *parameters)
        return rows[0] if rows else None

    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = list(self.plans)
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            yield node

    def rows_thrown_away(self) -> float:
        """Counts rows that were read from a table for nothing."""
        return sum(
            float(node.get("Rows Removed by Filter", 0) * node["Actual Loops"])
            for node in self.nodes()
        )

    def tables_read_whole(self) -> set[str]:
        """Names tables of more than a page that were read from end to end."""
        return {
            node["Relation Name"]
            for node in self.nodes()
            if node["Node Type"] == "Seq Scan"
            and node["Actual Loops"] > 0
            and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 1_000
        }

    def buffers(self) -> int:
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)


@pytest.fixture(scope="module")
def history(cluster: Any, long_run: bool) -> Iterator[tuple[str, Seeded]]:
    """A database of this module's own with a long history."""
    name = f"pages_{id(cluster)}"
    made = cluster.clone(name)
    seeded: list[Seeded] = []

    async def fill() -> None:
        connection = await asyncpg.connect(made)
        try:
            if long_run:
                seeded.append(await seed(connection, 1_000_000))
            else:
                seeded.append(await seed(connection, 60_000, days=6))
        finally:
            await connection.close()

    run_apart(fill)
    yield made, seeded[0]
    cluster.drop(name)


RESPONSE = """state <> 'succeeded' AND (SELECT a.response_code / 100 = 5 FROM dispatcher.attempt AS a
    WHERE a.day = d.day AND a.event_id = d.event_id AND a.delivery_id = dispatcher.delivery_uuid(d.id)
    ORDER BY a.attempt_number DESC LIMIT 1)"""
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "true"),
    "big_endpoint": ({"endpoint_id": BIG}, f"endpoint_id = '{BIG}'"),
    "small_endpoint": ({"endpoint_id": SMALL}, f"endpoint_id = '{SMALL}'"),
    "usual_type": ({"event_type": USUAL_TYPE}, f"event_type = '{USUAL_TYPE}'"),
    "rare_type": ({"event_type": RARE_TYPE}, f"event_type = '{RARE_TYPE}'"),
    "old_type": ({"event_type": OLD_TYPE}, f"event_type = '{OLD_TYPE}'"),
    "no_such_type": ({"event_type": "no.such"}, "false"),
    "failed": ({"state": "failed"}, "state = 'failed'"),
    "cancelled": ({"state": "cancelled"}, "state = 'cancelled'"),
    "succeeded": ({"state": "succeeded"}, "state = 'succeeded'"),
    "pending": ({"state": "pending"}, "false"),
    "failed_and_cancelled": (
        {"state": "failed,cancelled"},
        "(state = 'failed' OR state = 'cancelled')",
    ),
    "stock_types": ({"event_type": "stock.*"}, "starts_with(event_type, 'stock.')"),
    "server_errors": ({"response": "5xx"}, RESPONSE),
    "server_errors_of_big_endpoint": (
        {"response": "5xx,timeout", "endpoint_id": BIG},
        f"{RESPONSE} AND endpoint_id = '{BIG}'",
    ),
    "accepted": ({"response": "2xx"}, "state = 'succeeded'"),
    "tiny_tenant": ({"tenant": TINY}, f"tenant = '{TINY}'"),
    "no_such_tenant": ({"tenant": "nobody"}, "false"),
    "test": ({"test": True}, "test"),
    "event": ({"event_id": "evt_7"}, "event_id = 'evt_7'"),
    "rare_label": ({"label": ["order=ORD-0-6"]}, 'labels @> \'{"order": "ORD-0-6"}\''),
    "common_label": ({"label": ["warehouse=BKK"]}, 'labels @> \'{"warehouse": "BKK"}\''),
    "no_such_label": ({"label": ["no=such"]}, "false"),
    "business_key": ({"q": "ORD-0-6"}, 'labels @> \'{"order": "ORD-0-6"}\''),
    "common_value": ({"q": "CNX"}, 'labels @> \'{"warehouse": "CNX"}\''),
    "no_such_value": ({"q": "nothing"}, "false"),
    "rare_type_and_cancelled": (
        {"event_type": RARE_TYPE, "state": "cancelled"},
        f"event_type = '{RARE_TYPE}' AND state = 'cancelled'",
    ),
    "rare_type_and_tiny_tenant": (
        {"event_type": RARE_TYPE, "tenant": TINY},
        f"event_type = '{RARE_TYPE}' AND d.tenant = '{TINY}'",
    ),
    "old_type_and_big_endpoint_and_failed": (
        {"event_type": OLD_TYPE, "endpoint_id": BIG, "state": "failed"},
        f"event_type = '{OLD_TYPE}' AND endpoint_id = '{BIG}' AND state = 'failed'",
    ),
    "common_label_and_tiny_tenant": (
        {"label": ["warehouse=BKK"], "tenant": TINY},
        f"labels @> '{{\"warehouse\": \"BKK\"}}' AND d.tenant = '{TINY}'",
    ),
    "common_label_and_cancelled": (
        {"label": ["warehouse=BKK"], "state": "cancelled"},
        "labels @> '{\"warehouse\": \"BKK\"}' AND state = 'cancelled'",
    ),
}
BUFFERS_MAX = 4_000
"""Pages of 8 KiB; the whole history of the short form has some 15,000."""
PATTERN_BUFFERS_MAX = 1_000
"""The index of the short form has some 600 pages."""
HOURS = (0, 1, 6, 12, 18)
"""Of the day on which a deep page begins: how much of that day is left decides which way the search takes."""


async def ask(
    url: str, wanted: dict[str, Any], place: Place | None = None
) -> tuple[list[str], Explaining, float]:
    """Returns the ids of a page, what it read, and the best of three times without the explaining."""
    settings = load_settings(None, {"DISPATCHER_DATABASE_URL": url})
    search = DeliverySearch(deployment_of(settings, Database(url)))
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BEGIN)
        await connection.fetch(statement("connection_plan"))
        explaining = Explaining(connection)
        filter_ = DeliveriesQuery.of(**wanted)
        rows = await search.rows(explaining, ALL, filter_, place, LIMIT)  # type: ignore[arg-type]  # as asyncpg's
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            await search.rows(connection, ALL, filter_, place, LIMIT)
            seconds.append(time.perf_counter() - started)
        await connection.execute("ROLLBACK")
        return [row.id for row in rows], explaining, min(seconds)
    finally:
        await connection.close()


@pytest.mark.parametrize("deep", [False, True], ids=["first_page", "deep_page"])
@pytest.mark.parametrize("case", CASES)
async def test_a_page_is_right_and_reads_little(
    history: tuple[str, Seeded], case: str, deep: bool, long_run: bool
) -> None:
    url, _ = history
    wanted, condition = CASES[case]
    connection = await asyncpg.connect(url)
    try:
        at = await connection.fetchval("SELECT now()") - (OLD if deep else timedelta(0))
        await connection.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off")
        want = await connection.fetch(
            "SELECT d.id FROM words.delivery_done AS d"
            " LEFT JOIN dispatcher.event AS e ON e.day = d.day AND e.id = d.event_id"
            f" WHERE {condition.replace('tenant =', 'd.tenant =').replace('d.d.', 'd.').replace(' AND test', '')}"
            "   AND d.created_at < $1 ORDER BY d.created_at DESC, d.id DESC LIMIT 51"
            if "test" not in condition
            else "SELECT id FROM words.delivery_done WHERE test AND created_at < $1",
            at,
        )
    finally:
        await connection.close()
    found, read, seconds = await ask(url, wanted, Place(at, "") if deep else None)
    assert found == [row["id"] for row in want]
    assert read.tables_read_whole() == set()
    assert read.rows_thrown_away() <= (20_000 if long_run else 6_000)
    if long_run:
        assert seconds <= 0.2
    else:
        assert read.buffers() <= BUFFERS_MAX


async def test_a_request_id_is_looked_up_among_those_that_have_one(
    history: tuple[str, Seeded],
) -> None:
    url, seeded = history
    found, read, _ = await ask(url, {"request_id": seeded.request_id})
    assert found
    assert read.buffers() <= 500
    none, read, _ = await ask(url, {"request_id": "req_0123456789abcdef"})
    assert none == []
    assert read.buffers() <= 500


async def test_a_request_id_joins_no_events(history: tuple[str, Seeded]) -> None:
    """Over a million events the planner preferred a join that reads all of them."""
    url, seeded = history
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BEGIN)
        await connection.fetch(statement("connection_plan"))
        await connection.execute("SET LOCAL enable_nestloop = off")
        explaining = Explaining(connection)
        digits = bytes.fromhex(seeded.request_id.removeprefix("req_"))
        assert await requested_events(explaining, digits, ["humansoft"])  # type: ignore[arg-type]  # as asyncpg's
        await connection.execute("ROLLBACK")
        assert explaining.buffers() <= 500
    finally:
        await connection.close()


async def test_a_page_that_a_day_fills_reads_no_other_day(history: tuple[str, Seeded]) -> None:
    """A merge of all days has to read each of them down to its first match."""
    url, _ = history
    found, read, _ = await ask(url, {"response": "5xx"})
    assert len(found) == LIMIT
    days = {
        node["Relation Name"]
        for node in read.nodes()
        if node.get("Relation Name", "").startswith("delivery_done_") and node["Actual Loops"]
    }
    assert len(days) <= 2  # the day after today may have a partition, which is empty


async def test_a_pattern_of_a_rare_type_reads_the_index_alone(history: tuple[str, Seeded]) -> None:
    url, _ = history
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM dispatcher.delivery_done")
    finally:
        await connection.close()
    found, read, _ = await ask(url, {"event_type": RARE_TYPE.partition(".")[0] + ".*"})
    assert found
    assert read.buffers() <= PATTERN_BUFFERS_MAX


async def test_a_question_that_reads_everything_would_be_seen(history: tuple[str, Seeded]) -> None:
    """The control: the same filter without indexes breaks the bounds of the tests above."""
    url, _ = history
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
        )
        read = Explaining(connection)
        await read.fetch(
            "SELECT id FROM words.delivery_done WHERE event_type = $1 ORDER BY created_at LIMIT 51",
            RARE_TYPE,
        )
    finally:
        await connection.close()
    assert read.tables_read_whole()
    assert read.rows_thrown_away() > 6_000


@pytest.mark.parametrize("hour", HOURS)
@pytest.mark.parametrize("case", ["common_label", "common_value"])
async def test_a_deep_page_of_a_common_label_reads_little_at_any_hour(
    history: tuple[str, Seeded], case: str, hour: int
) -> None:
    """Seen: a label of just under `EVENTS_MAX` events had all of them read one by one, for fifty deliveries."""
    url, _ = history
    wanted, condition = CASES[case]
    connection = await asyncpg.connect(url)
    try:
        midnight = await connection.fetchval("SELECT date_trunc('day', now(), 'UTC')")
        at = midnight - OLD + timedelta(hours=hour, minutes=20)
        want = await connection.fetch(
            "SELECT d.id FROM words.delivery_done AS d"
            " JOIN dispatcher.event AS e ON e.day = d.day AND e.id = d.event_id"
            f" WHERE {condition} AND d.created_at < $1"
            " ORDER BY d.created_at DESC, d.id DESC LIMIT 51",
            at,
        )
    finally:
        await connection.close()
    found, read, _ = await ask(url, wanted, Place(at, ""))
    assert found == [row["id"] for row in want]
    assert read.buffers() <= BUFFERS_MAX


async def test_control_a_page_by_offset_reads_what_it_skips(history: tuple[str, Seeded]) -> None:
    """A23: as deep as one can ask; the same page by its place, rows and all, reads a third at most.

    The offset skips index entries alone, and those of 50,000 narrow rows fit in few pages.
    """
    url, _ = history
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off")
        read = Explaining(connection)
        skipped = "SELECT id, created_at FROM words.delivery_done ORDER BY created_at DESC, id DESC"
        last = await read.fetchrow(skipped + " OFFSET 50000 LIMIT 1")
    finally:
        await connection.close()
    _, by_place, _ = await ask(url, {}, Place(last["created_at"], last["id"]))
    assert by_place.buffers() * 3 <= read.buffers()
