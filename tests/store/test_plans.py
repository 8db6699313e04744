"""Hot statements on 50,000 rows: they use the index that their header names and touch few rows, however many wait."""

import functools
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.pool import _BEGIN
from dispatcher.store.statements import statement
from tests.support.cluster import run_apart

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ROWS = 50_000
ENDPOINTS = 50

FILL = f"""
INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)
SELECT 'ep' || g, 'default', 'e' || g, 'https://x.test/', 'wms', '{{*}}', g % 64
FROM generate_series(1, {ENDPOINTS}) AS g;
INSERT INTO dispatcher.outbox (type, data) SELECT 'order.created', '{{"a": 1}}' FROM generate_series(1, {ROWS});
INSERT INTO dispatcher.outbox (id, type, consumed_at)
SELECT 'own' || g, 'order.created', now() - interval '1 day' FROM generate_series(1, {ROWS}) AS g;
INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
SELECT (now() AT TIME ZONE 'UTC')::date, 'evt' || g, 'order.created', 'default', '{{}}', now(), '{{}}', now(), now()
FROM generate_series(1, {ROWS}) AS g;
INSERT INTO dispatcher.body (day, event_id, profile, bytes)
SELECT (now() AT TIME ZONE 'UTC')::date, 'evt' || g, 'wms', 'body' FROM generate_series(1, {ROWS}) AS g;
INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code, next_attempt_at)
SELECT words.uuid('wh' || g), (now() AT TIME ZONE 'UTC')::date, 'evt' || g, p.number, 0,
       now() - interval '1 hour' + g * interval '0.1 s'
FROM generate_series(1, {ROWS}) AS g JOIN dispatcher.endpoint AS p ON p.id = 'ep' || (1 + g % {ENDPOINTS});
"""
DELIVERIES = [
    UUID(md5(f"wh{number}".encode(), usedforsecurity=False).hexdigest()) for number in range(1, 501)
]
EVENTS = [f"evt{number}" for number in range(1, 501)]


@pytest.fixture(scope="module")
def url(cluster: Any) -> Iterator[str]:
    """A database of this module's own with 50,000 rows in each hot table, some analysed and some not."""
    name = "plans"
    made = cluster.clone(f"{name}_{id(cluster)}")

    async def fill() -> None:
        connection = await asyncpg.connect(made)
        try:
            # Statistics of the empty tables: what a daemon sees after a quiet night.
            await connection.execute("ANALYZE")
            await connection.execute("SET session_replication_role = origin")
            await connection.execute(FILL)
        finally:
            await connection.close()

    run_apart(fill)
    yield made
    cluster.drop(f"{name}_{id(cluster)}")


class Plan:
    """What EXPLAIN (ANALYZE, BUFFERS) said."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.nodes = list(self._walk(root))
        self.indexes = {node["Index Name"] for node in self.nodes if "Index Name" in node}
        self.buffers = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
        self.scanned = {
            node["Relation Name"]
            for node in self.nodes
            if node["Node Type"] == "Seq Scan" and node["Actual Loops"] > 0
        }
        self.rows_max = max(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in self.nodes
        )

    def _walk(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for child in node.get("Plans", []):
            yield from self._walk(child)

    def uses(self, index: str) -> bool:
        """Tells whether an index of this name, or its partition's, was used."""
        return any(name == index or name.endswith(index) for name in self.indexes)


async def explained(url: str, name: str, *parameters: object, generic: bool = False) -> Plan:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BEGIN)
        if generic:
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        text = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name), *parameters
        )
        await connection.execute("ROLLBACK")
        return Plan(orjson.loads(text)[0]["Plan"])
    finally:
        await connection.close()


@pytest.fixture
def explain(url: str) -> Callable[..., Any]:
    return functools.partial(explained, url)


@pytest.mark.parametrize("generic", [False, True])
async def test_a_claim_reads_what_it_takes(explain, generic):
    plan = await explain("outbox_claim", 500, 16_000_000, None, 0, generic=generic)
    assert plan.uses("outbox_waiting")
    assert "outbox" not in plan.scanned
    assert plan.rows_max <= 2_000
    assert plan.buffers <= 40_000


@pytest.mark.parametrize("generic", [False, True])
async def test_a_poll_looks_at_one_row(explain, generic):
    # Without the count of waiting commits, which reads the locks of all sessions.
    plan = await explain("outbox_poll", 0, False, generic=generic)
    assert plan.uses("outbox_waiting")
    assert plan.rows_max <= 2
    assert plan.buffers <= 50


@pytest.mark.parametrize("generic", [False, True])
async def test_a_window_reads_its_rows_of_each_endpoint(explain, generic):
    plan = await explain(
        "delivery_open_window", [f"ep{n}" for n in range(1, 11)], 100, 600.0, generic=generic
    )
    assert plan.uses("delivery_open_due")
    assert plan.scanned == set()
    assert plan.rows_max <= 1_000
    assert plan.buffers <= 4_000


async def test_a_window_reads_nothing_beyond_its_horizon(explain):
    """Retries of the next hours wait in the same index: a bound that is no index condition would read them all."""
    plan = await explain("delivery_open_window", ["ep1"], 5_000, -3_500.0)
    assert plan.uses("delivery_open_due")
    assert plan.rows_max <= ENDPOINTS, (
        "their numbers come from the table of endpoints, which is small"
    )


@pytest.mark.parametrize("generic", [False, True])
async def test_arrivals_read_the_last_moments_of_each_endpoint(explain, generic):
    plan = await explain(
        "delivery_open_arrived", [f"ep{n}" for n in range(1, 51)], 100, 30.0, generic=generic
    )
    assert plan.uses("delivery_open_due")
    assert plan.scanned == set()
    assert plan.rows_max <= 1_000
    assert plan.buffers <= 4_000


@pytest.mark.parametrize("generic", [False, True])
async def test_loading_reads_one_row_of_each_table_a_delivery(explain, generic):
    plan = await explain("delivery_open_load", DELIVERIES, generic=generic)
    assert plan.uses("delivery_open_pkey")
    assert "delivery_open" not in plan.scanned
    assert plan.rows_max <= 1_000
    assert plan.buffers <= 20_000
    today = SystemClock.now().date()
    plan = await explain(
        "event_load", [today] * len(EVENTS), EVENTS, ["wms"] * len(EVENTS), [today], generic=generic
    )
    assert not plan.scanned
    assert plan.rows_max <= 1_000
    assert plan.buffers <= 20_000


@pytest.mark.parametrize("generic", [False, True])
async def test_recording_moves_its_rows_by_their_key(explain, url, generic):
    del url
    count = len(DELIVERIES)
    plan = await explain(
        "delivery_record",
        [5],
        [0],
        [5] * count,
        DELIVERIES,
        [1] * count,
        [True] * (count // 2) + [False] * (count - count // 2),
        [1] * count,
        [None] * (count // 2) + [30.0] * (count - count // 2),
        generic=generic,
    )
    assert plan.uses("delivery_open_pkey")
    assert "delivery_open" not in plan.scanned
    assert plan.rows_max <= 300_000  # the last step compares 500 results with those that moved
    assert plan.buffers <= 40_000


async def test_forgetting_old_ids_reads_a_slice(explain):
    plan = await explain("outbox_forget_tombstones", 0, 1_000)
    assert plan.uses("outbox_tombstones")
    assert plan.rows_max <= 1_000


async def test_cancelling_reads_a_slice(explain):
    plan = await explain("delivery_open_cancel_of_endpoints", ["ep1", "ep2"], [5, 5], 100)
    assert plan.uses("delivery_open_due")
    assert "delivery_open" not in plan.scanned
    assert plan.rows_max <= 200


async def test_looking_for_endpoints_with_nothing_to_send_probes_each_once(explain):
    plan = await explain("endpoint_list_idle")
    assert plan.rows_max <= 2 * ENDPOINTS


async def test_a_claim_that_sorts_the_whole_backlog_would_be_seen(url):
    """The control: with bitmap scans allowed the planner, knowing the outbox as empty, reads all of it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BEGIN)
        await connection.execute("SET LOCAL enable_bitmapscan = on")
        text = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement("outbox_claim"),
            500,
            16_000_000,
            None,
            0,
        )
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()
    assert Plan(orjson.loads(text)[0]["Plan"]).rows_max >= ROWS


async def test_a_scan_of_the_whole_table_would_be_seen(url):
    """The control: a plan that cannot use an index shows in the figures that the tests above look at."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "BEGIN; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off;"
            " SET LOCAL enable_indexonlyscan = off"
        )
        text = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement("delivery_open_load"), DELIVERIES
        )
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()
    plan = Plan(orjson.loads(text)[0]["Plan"])
    assert "delivery_open" in plan.scanned
    assert plan.rows_max >= ROWS


async def test_recent_types_read_a_bounded_number_of_events(explain):
    now = SystemClock.now()
    plan = await explain(
        "event_type_recent", now - timedelta(hours=24), now.date(), 2_000, None, 500
    )
    assert plan.uses("accepted_at_hashtext_hashtext1_idx") or plan.uses("event_newest")
    assert "event" not in " ".join(plan.scanned)
    assert plan.rows_max <= 2_000
    assert plan.buffers <= 4_000


async def test_a_common_label_of_a_small_tenant_reads_few_events(fresh_database):
    """The index of labels finds the events of all tenants, that of times has a hash of the tenant."""
    connection = await asyncpg.connect(fresh_database)
    await connection.execute(
        "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)"
        " SELECT (now() AT TIME ZONE 'UTC')::date, 'evt' || g, 'order.created',"
        " CASE WHEN g % 5000 = 0 THEN 'tiny' ELSE 'default' END, '{}', now(), '{\"warehouse\": \"BKK\"}', now(), now()"
        " FROM generate_series(1, 20000) AS g; ANALYZE dispatcher.event"
    )
    await connection.close()
    today = SystemClock.now().date()
    plan = await explained(
        fresh_database, "event_list_labelled", '{"warehouse": "BKK"}', None, "tiny", None, None, None, 101,
        today - timedelta(days=31), date.max,
    )  # fmt: skip
    assert plan.uses("accepted_at_hashtext_hashtext1_idx")
    assert plan.rows_max <= 100


async def test_failed_deliveries_of_an_endpoint_are_read_alone(fresh_database):
    """A few failed ones among many of the same endpoint, and among many failed ones of another."""
    connection = await asyncpg.connect(fresh_database)
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " SELECT 'ep' || g, 'default', 'e' || g, 'https://x.test/', 'wms', '{*}', 1 FROM generate_series(1, 2) AS g;"
        "INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, reason,"
        " attempt_count, schedule_position)"
        " SELECT gen_random_uuid(), (now() AT TIME ZONE 'UTC')::date, 'evt' || g, number, 0,"
        " CASE WHEN id = 'ep2' OR g % 4000 = 0 THEN 4 ELSE 3 END,"
        " CASE WHEN id = 'ep2' OR g % 4000 = 0 THEN 1 END, 1, 1"
        " FROM generate_series(1, 20000) AS g, dispatcher.endpoint; ANALYZE dispatcher.delivery_done"
    )
    await connection.close()
    today = SystemClock.now().date()
    filters: list[object] = [None] * 16
    filters[1], filters[5], filters[12] = "ep1", [4], 51
    plan = await explained(
        fresh_database, "delivery_page", *filters, today - timedelta(days=31), date.max
    )
    assert plan.buffers <= 60  # of the 150 of either index that has the others too


async def test_outcomes_read_the_deliveries_of_their_events_alone(explain):
    today = SystemClock.now().date()
    lows = [UUID(int=0)] * 20
    highs = [UUID(int=0)] * 20  # the ids of the fill are not derived from their events
    plan = await explain("event_outcomes", [today] * 20, EVENTS[:20], lows, highs, 1_000)
    assert plan.uses("delivery_open_pkey")
    assert plan.scanned == set()
    assert plan.rows_max <= 100
    assert plan.buffers <= 400
