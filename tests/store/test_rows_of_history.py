"""What is stored of events, deliveries and attempts, and that people read it back as it was, in words."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatcher.core import codes, ids
from dispatcher.core.envelope import encode
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.store.attempts import load_attempts
from dispatcher.store.bodies import load_body
from dispatcher.store.claims import BodyRow, DeliveryRow
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_details import deliveries_of_event, find_delivery
from dispatcher.store.events import find_event
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Results
from tests.support.words import attempt_row
from tests.wire.vectors import PROFILES

pytestmark = pytest.mark.postgres

DATA = '{"b": 1.0, "ก": "ข", "b": 2}'
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE dispatcher.shard SET owner = 'me', token = 7")
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=3)
    await pool.open()
    yield pool
    await pool.close()


async def fan_out(
    pool: Database, sql: Any, profiles: list[str], endpoints: int
) -> list[DeliveryRow]:
    """Commits an event and takes it through, for so many endpoints of these profiles in turn."""
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', $1)", DATA
    )
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " SELECT 'ep_' || n, 'default', 'e' || n, 'https://x.test/1',"
        " ($2::text[])[1 + (n - 1) % cardinality($2::text[])], '{*}', 5 FROM generate_series(1, $1::int) AS n",
        endpoints,
        profiles,
    )
    targets = await sql.fetch("SELECT id, number, profile FROM dispatcher.endpoint ORDER BY number")
    async with Outbox(pool).claim(1, 1 << 20) as claim:
        (event,) = claim.events
        unix_ms = ids.delivery_unix_ms(event.inserted_at, claim.day)
        rows = [
            DeliveryRow(
                ids.delivery_id(unix_ms, event.id, target["id"]),
                claim.day,
                event.id,
                EndpointId(target["id"]),
                target["number"],
                event.type,
                "default",
                target["profile"],
                None,
            )
            for target in targets
        ]
        bodies = [
            BodyRow(claim.day, event.id, name, encode(PROFILES[name], event).body)
            for name in profiles
        ]
        await claim.write(bodies, rows, [])
    return rows


async def test_an_event_with_500_endpoints_of_five_profiles_keeps_each_body(pool, sql):
    profiles = ["humansoft", "wms", "standard", "github", "stripe"]
    rows = await fan_out(pool, sql, profiles, 500)
    assert len({row.id for row in rows}) == 500
    loaded = {row.id: row for row in await Deliveries(pool).load([row.id for row in rows])}
    async with pool.reading() as connection:
        event = await find_event(connection, rows[0].event_id, None)
        assert event is not None
        deliveries = await deliveries_of_event(connection, event)
        for row in rows[:5]:
            shown = next(one for one in deliveries if one.id == row.id)
            assert await load_body(connection, shown) == loaded[row.id].body
    assert event.data == DATA, "digits, order and doubled keys as the producer wrote them"
    assert {one.id for one in deliveries} == set(loaded)
    assert Counter(one.profile for one in deliveries) == dict.fromkeys(profiles, 100)
    by_profile: dict[str, set[bytes | None]] = {}
    for row in rows:
        by_profile.setdefault(row.profile, set()).add(loaded[row.id].body)
    assert {name: len(bodies) for name, bodies in by_profile.items()} == dict.fromkeys(profiles, 1)
    assert DATA.encode() in (by_profile["wms"].pop() or b"")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.body") == 4
    assert await sql.fetchval("SELECT data IS NULL FROM dispatcher.event"), "found in a body"


@pytest.mark.parametrize("profiles", [["humansoft"], []])
async def test_data_that_no_body_contains_is_stored_as_written(pool, sql, profiles):
    await fan_out(pool, sql, profiles, len(profiles))
    assert await sql.fetchval("SELECT data::text FROM dispatcher.event") == DATA
    assert await sql.fetchval("SELECT data::text FROM dispatcher.event_all") == DATA


async def test_a_first_attempt_that_fails_with_a_body_and_a_second_that_succeeds(pool, sql):
    (row,) = await fan_out(pool, sql, ["wms"], 1)
    store, number = Results(pool), row.endpoint_no
    common = {"event_type": row.event_type, "endpoint_no": number}
    failed = attempt_row(
        row.day, row.id, row.event_id, outcome="http_error", response_code=500,
        response_body=b"no", error="500", response_headers=b"A: \xff\0", flags=("sloppy",), **common,
    )  # fmt: skip
    await store.record([MoveRow(5, row.id, 1, "retrying", None, 1, 0.0)], [failed], {5: 7})
    succeeded = attempt_row(row.day, row.id, row.event_id, attempt_number=2, **common)
    await store.record([MoveRow(5, row.id, 2, "succeeded", None, 2, None)], [succeeded], {5: 7})
    async with pool.reading() as connection:
        shown = await find_delivery(connection, row.id, None)
        assert shown is not None
        attempts = await load_attempts(connection, shown)
    assert (shown.state, shown.attempt_count, shown.schedule_position) == ("succeeded", 2, 2)
    assert [
        (
            a.attempt_number,
            a.trigger,
            a.outcome,
            a.response_body,
            a.response_headers,
            a.error,
            a.flags,
        )
        for a in attempts
    ] == [
        (1, "scheduled", "http_error", b"no", b"A: \xff\0", "500", ["sloppy"]),
        (2, "scheduled", "ok", None, None, None, None),
    ]
    assert await sql.fetchval("SELECT attempted_at IS NULL FROM dispatcher.delivery_done")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == 2


async def test_a_first_attempt_that_succeeds_is_part_of_its_delivery(pool, sql):
    (row,) = await fan_out(pool, sql, ["wms"], 1)
    attempt = attempt_row(row.day, row.id, row.event_id, endpoint_no=row.endpoint_no)
    move = MoveRow(5, row.id, 1, "succeeded", None, 1, None)
    for _ in range(2):  # the second time, the commit's response was lost
        await Results(pool).record([move], [attempt], {5: 7})
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == 0
    (seen,) = await sql.fetch("SELECT * FROM dispatcher.attempt_all")
    assert (seen["delivery_id"], seen["outcome"], seen["response_code"]) == (row.id, "ok", 200)
    assert seen["peer"] == "127.0.0.1"
    # A resend is an attempt of its own.
    resend = attempt._replace(attempt_number=2, trigger="manual")
    recorded = await Results(pool).record([move._replace(attempt_number=2)], [resend], {5: 7})
    assert recorded.late == {row.id}
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all") == 2


async def test_an_attempt_names_the_url_that_it_used_whatever_it_is_now(pool, sql):
    """The endpoint changes between claim and send: the attempt has the revision of its request."""
    (row,) = await fan_out(pool, sql, ["wms"], 1)
    await sql.execute(
        "UPDATE dispatcher.endpoint SET url = 'https://x.test/2', headers = '{\"A\": \"s\"}'"
    )
    await sql.execute("UPDATE dispatcher.endpoint SET name = 'no new revision'")
    revision = await sql.fetchval("SELECT revision FROM dispatcher.endpoint")
    assert revision == 2
    attempt = attempt_row(
        row.day, row.id, row.event_id, endpoint_no=row.endpoint_no, revision=revision
    )
    await Results(pool).record(
        [MoveRow(5, row.id, 1, "succeeded", None, 1, None)], [attempt], {5: 7}
    )
    await sql.execute("UPDATE dispatcher.endpoint SET url = 'https://x.test/3'")
    await sql.execute("UPDATE dispatcher.endpoint SET deleted_at = now(), headers = '{}'")
    assert await sql.fetchval("SELECT url FROM dispatcher.attempt_all") == "https://x.test/2"
    kept = await sql.fetch(
        "SELECT revision, url, header_names FROM dispatcher.endpoint_revision ORDER BY 1"
    )
    assert [tuple(one) for one in kept] == [
        (1, "https://x.test/1", []),
        (2, "https://x.test/2", ["A"]),
        (3, "https://x.test/3", ["A"]),
    ]


async def test_views_show_the_words_of_the_codes(sql):
    for view, column, words in (
        ("delivery", "state", codes.STATES),
        ("delivery", "reason", codes.REASONS),
        ("attempt_all", "trigger", codes.TRIGGERS),
        ("attempt_all", "outcome", codes.OUTCOMES),
    ):
        text = await sql.fetchval(f"SELECT pg_get_viewdef('dispatcher.{view}')")
        arrays = re.findall(r"ARRAY\[([^\]]*)\]\)\[\w+\.(\w+)\]", text)
        shown = {name: re.findall(r"'(\w+)'", array) for array, name in arrays}
        assert tuple(shown[column]) == words


async def test_delivery_ids_are_the_same_in_sql_and_in_python(sql):
    for event_id, endpoint_id in (("e", "ep"), ("evt_2026_000001", "ep_x"), ("z" * 64, "y" * 29)):
        made = ids.delivery_id(1_790_000_000_123, event_id, endpoint_id)
        row = await sql.fetchrow(
            "SELECT dispatcher.delivery_id(u) AS id, u, dispatcher.delivery_created_at(u) AS at"
            " FROM dispatcher.delivery_uuid($1) AS u",
            made,
        )
        assert row["id"] == made
        assert row["u"].bytes == ids.to_bytes(made)
        assert row["at"] == ids.moment_of(made) == datetime(2026, 9, 21, 14, 13, 20, 123000, UTC)


async def test_reporting_documents_every_column_and_its_queries_run(pool, sql):
    text = (CHECKOUT / "docs" / "reference" / "reporting.md").read_text()
    for view in ("event_all", "delivery", "attempt_all"):
        section = text.split(f"## `dispatcher.{view}`")[1].split("\n## ")[0]
        described = {
            name
            for line in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
            for name in re.findall(r"`(\w+)`", line)
        }
        columns = await sql.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0",
            f"dispatcher.{view}",
        )
        assert described == {row["attname"] for row in columns}
    await fan_out(pool, sql, ["wms"], 1)
    queries = re.findall(r"```sql\n(SELECT.*?)```", text, re.DOTALL)
    assert len(queries) >= 4
    for query in queries:
        await sql.fetch(query)


async def test_a_late_result_of_a_lost_delivery_changes_nothing(pool, sql):
    """A crash undid the claim: there is neither an open nor an ended delivery (ADR 43)."""
    day = datetime.now(UTC).date()  # noqa: TID251 -- a day that has a partition
    lost = ids.delivery_id(1_790_000_000_000, "e", "ep")
    recorded = await Results(pool).record(
        [MoveRow(5, DeliveryId(lost), 1, "succeeded", None, 1, None)],
        [attempt_row(day, lost, "e")],
        {5: 7},
    )
    assert recorded.late == {lost}
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all") == 0
