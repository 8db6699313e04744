"""Plans that are cached while a hot table is nearly empty, and used when it is full.

A prepared statement keeps its generic plan until the table's statistics change. A plan that joined by reading the
whole table cost nothing at first, and compared 128 results with each of 20,000 rows in the next drain.
"""

from typing import Any

import orjson
import pytest

from dispatcher.store.statements import statement

pytestmark = pytest.mark.postgres


def _scans(node: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """Return the nodes of a plan that read a table."""
    found = (
        [node] if node.get("Relation Name") == table and node["Node Type"] != "ModifyTable" else []
    )
    return found + [one for child in node.get("Plans", ()) for one in _scans(child, table)]


def _joins(node: dict[str, Any]) -> list[str]:
    """Return the joins of a plan that have the results of a batch on one side."""
    sides = node.get("Plans", ())
    found = [
        node["Node Type"]
        for side in sides
        if "Join Type" in node and side.get("CTE Name") in ("given", "ended", "waiting")
    ]
    return found + [one for child in sides for one in _joins(child)]


async def _generic_plan(connection: Any, name: str, parameters: str) -> dict[str, Any]:
    """Return the plan that a prepared statement keeps."""
    count = parameters.count(",") + 1
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL plan_cache_mode = force_generic_plan;"
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
        )
        await connection.execute(f"PREPARE cached ({parameters}) AS {statement(name)}")
        explained = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) EXECUTE cached ({', '.join(['NULL'] * count)})"
        )
        await connection.execute("DEALLOCATE cached")
    plan: dict[str, Any] = orjson.loads(explained)[0]["Plan"]
    return plan


RECORD = "smallint[], bigint[], smallint[], uuid[], integer[], boolean[], integer[], float8[]"
RECORD_FIRST = "smallint[], bigint[], dispatcher.first_success[]"


@pytest.mark.parametrize(
    ("name", "parameters"), [("delivery_record", RECORD), ("delivery_record_first", RECORD_FIRST)]
)
async def test_a_plan_of_the_recorder_joins_no_results(connection, name, parameters):
    """A join of 256 results with 256 open rows compares 65,536 pairs: a plan expects ten of either."""
    assert _joins(await _generic_plan(connection, name, parameters)) == []


@pytest.mark.parametrize(
    ("name", "table", "parameters"),
    [
        ("delivery_record", "delivery_open", RECORD),
        ("delivery_record_first", "delivery_open", RECORD_FIRST),
        ("outbox_peek", "outbox", "integer, bigint, bigint"),
        (
            "outbox_fan_out",
            "outbox",
            "dispatcher.claimed_event[], timestamptz, date, dispatcher.opened_delivery[], boolean, text",
        ),
        (
            "outbox_fan_out_numbered",
            "outbox",
            "dispatcher.claimed_event[], timestamptz, date, dispatcher.opened_delivery[], boolean, text",
        ),
        ("outbox_quarantine", "outbox", "text"),
        ("outbox_renumber", "outbox", "text[]"),
        ("delivery_open_load", "delivery_open", "uuid[]"),
        ("delivery_request_settle", "delivery_request", "uuid[], timestamptz[], boolean[]"),
        ("delivery_request_forget", "delivery_request", "uuid[], text[]"),
    ],
)
async def test_a_plan_from_an_empty_table_reads_by_key(connection, name, table, parameters):
    await connection.execute(f"VACUUM ANALYZE dispatcher.{table}")
    scans = _scans(await _generic_plan(connection, name, parameters), table)
    assert scans
    assert [scan for scan in scans if "Index Cond" not in scan] == []
