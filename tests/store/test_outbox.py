"""The outbox as producers meet it (rules, ids, privileges) and as the daemon claims it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from dispatcher.store.migrate import grant_producers, producers_problems
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres

MEBIBYTE = 1_048_576


@pytest.fixture
async def outbox(database: str) -> AsyncIterator[Outbox]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield Outbox(pool)
    await pool.close()


async def _insert(sql: Any, **given: Any) -> Any:
    columns = {"type": "order.created", "data": "{}", **given}
    names = ", ".join(columns)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return await sql.fetchval(
        f"INSERT INTO dispatcher.outbox ({names}) VALUES ({places}) RETURNING id", *columns.values()
    )


async def _insert_endpoints(sql: Any, *tenants: str) -> None:
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " SELECT 'ep_' || t, t, t, 'https://x.test/', 'wms', '{*}', 1 FROM unnest($1::text[]) AS t",
        tenants,
    )


LABELS_21 = "{" + ",".join(f'"l{n}": "v"' for n in range(21)) + "}"


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"type": "Order.created"}, "type_is_lower_case_words_joined_by_dots_up_to_128"),
        ({"type": "order"}, "type_is_lower_case_words_joined_by_dots_up_to_128"),
        ({"type": "order.created\n"}, "type_is_lower_case_words_joined_by_dots_up_to_128"),
        ({"type": "a." + "b" * 127}, "type_is_lower_case_words_joined_by_dots_up_to_128"),
        ({"type": "dispatcher.endpoint.failing"}, "type_prefix_dispatcher_is_reserved"),
        ({"data": "[]"}, "data_is_a_json_object"),
        ({"data": "null"}, "data_is_a_json_object"),
        ({"data": None}, "data_is_required"),
        ({"data": '{"a":"' + "x" * (MEBIBYTE - 7) + '"}'}, "data_is_at_most_1_mebibyte"),
        ({"id": "with space"}, "id_is_1_to_64_letters_digits_underscores_hyphens"),
        ({"id": "x" * 65}, "id_is_1_to_64_letters_digits_underscores_hyphens"),
        ({"id": ""}, "id_is_1_to_64_letters_digits_underscores_hyphens"),
        ({"id": "evt_2026_001234"}, "id_form_evt_year_number_is_reserved"),
        ({"id": "evt_1999_1234567"}, "id_form_evt_year_number_is_reserved"),
        ({"tenant": "Tenant"}, "tenant_is_1_to_64_lower_case_letters_digits_underscores_hyphens"),
        ({"ordering_key": "k" * 257}, "ordering_key_is_at_most_256_characters"),
        ({"traceparent": "t" * 257}, "traceparent_is_at_most_256_characters"),
        ({"labels": "[]"}, "labels_are_at_most_20_named_strings"),
        ({"labels": '{"a": 1}'}, "labels_are_at_most_20_named_strings"),
        ({"labels": '{"A": "b"}'}, "labels_are_at_most_20_named_strings"),
        ({"labels": '{"a": "' + "v" * 257 + '"}'}, "labels_are_at_most_20_named_strings"),
        ({"labels": LABELS_21}, "labels_are_at_most_20_named_strings"),
    ],
)
async def test_a_bad_row_is_refused_and_the_error_says_the_rule(sql, columns, rule):
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await _insert(sql, **columns)
    assert rule in str(refused.value)
    assert refused.value.constraint_name == rule


@pytest.mark.parametrize("year", ["1969-12-31 23:59:59+00", "10000-01-01 00:00:00+00", "infinity"])
async def test_occurred_at_outside_1970_to_9999_is_refused(sql, year):
    with pytest.raises(
        asyncpg.CheckViolationError, match="occurred_at_is_in_the_years_1970_to_9999"
    ):
        await sql.execute(
            f"INSERT INTO dispatcher.outbox (type, data, occurred_at) VALUES ('a.b', '{{}}', '{year}')"
        )


async def test_what_is_just_within_the_rules_is_taken(sql):
    labels = "{" + ",".join(f'"{"l" * 62}{n:02}": "{"v" * 256}"' for n in range(20)) + "}"
    await _insert(
        sql,
        type="a." + "b" * 126,
        data='{"a":"' + "x" * (MEBIBYTE - 8) + '"}',
        id="x" * 64,
        labels=labels,
        ordering_key="k" * 256,
        traceparent="t" * 256,
    )


async def test_data_keeps_its_text(sql, outbox):
    text = '{"b": 12.0, "a": "ก\\u0e02",  "b": 1e400}'
    await _insert(sql, data=text)
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert [event.data for event in claim.events] == [text]


async def test_made_ids_have_six_digits_and_then_more(sql):
    assert (await _insert(sql)).endswith("_000001")
    await sql.execute("ALTER SEQUENCE dispatcher.event_number RESTART WITH 999999")
    assert [(await _insert(sql))[-8:] for _ in range(2)] == ["6_999999", "_1000000"]
    assert (
        await _insert(sql, id=None)
        == "evt_"
        + str(await sql.fetchval("SELECT extract(year FROM now() AT TIME ZONE 'UTC')"))
        + "_1000001"
    )


async def test_supplied_id_outlives_its_event_and_a_generated_one_does_not(sql, outbox):
    await _insert(sql, id="mine", labels='{"a": "b"}', ordering_key="k")
    await _insert(sql)
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert len(claim.events) == 2
    rows = await sql.fetch(
        "SELECT id, data, labels, ordering_key, consumed_at FROM dispatcher.outbox"
    )
    assert [(row["id"], row["data"], row["labels"], row["ordering_key"]) for row in rows] == [
        ("mine", None, "{}", None)
    ]
    assert rows[0]["consumed_at"] is not None
    with pytest.raises(asyncpg.UniqueViolationError):
        await _insert(sql, id="mine")
    assert await outbox.forget_tombstones(7, 10) == 0
    await sql.execute("UPDATE dispatcher.outbox SET consumed_at = now() - interval '8 days'")
    assert await outbox.forget_tombstones(7, 10) == 1
    assert await _insert(sql, id="mine") == "mine"


async def _crash_in_claim(outbox: Outbox) -> None:
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert len(claim.events) == 1
        raise RuntimeError("crash")


async def test_a_claim_that_is_not_committed_leaves_the_events(sql, outbox):
    await _insert(sql, id="mine")
    with pytest.raises(RuntimeError, match="crash"):
        await _crash_in_claim(outbox)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.event") == 0
    assert (await outbox.poll()).outbox_waiting
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert [event.id for event in claim.events] == ["mine"]
    assert not (await outbox.poll()).outbox_waiting


async def test_claims_at_once_are_disjoint_and_together_complete(sql, outbox):
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT 'a.b', '{}' FROM generate_series(1, 50)"
    )
    async with AsyncExitStack() as stack:
        claims = [await stack.enter_async_context(outbox.claim(20, MEBIBYTE)) for _ in range(3)]
        ids = [event.id for claim in claims for event in claim.events]
    assert len(ids) == len(set(ids)) == 50
    assert [len(claim.events) for claim in claims] == [20, 20, 10]


async def test_a_claim_is_bounded_in_bytes_and_takes_one_event_whatever_its_size(sql, outbox):
    for _ in range(4):
        await _insert(sql, data='{"a":"' + "x" * 1_000 + '"}')
    sizes = []
    for bytes_max in (2_500, 1):
        async with outbox.claim(10, bytes_max) as claim:
            sizes.append(len(claim.events))
    assert sizes == [3, 1]


async def test_an_uncommitted_writer_delays_only_its_own_event(sql, outbox, database):
    slow = await asyncpg.connect(database)
    await slow.execute("BEGIN")
    await _insert(slow, id="slow")
    await _insert(sql, id="quick")
    async with asyncio.timeout(2), outbox.claim(10, MEBIBYTE) as claim:
        assert [event.id for event in claim.events] == ["quick"]
    await slow.execute("COMMIT")
    await slow.close()
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert [event.id for event in claim.events] == ["slow"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
        ("garbage", None),
        ("00-" + "A" * 32 + "-" + "b" * 16 + "-01", None),
        (None, None),
    ],
)
async def test_a_malformed_traceparent_is_dropped(sql, outbox, given, kept):
    await _insert(sql, traceparent=given)
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert claim.events[0].traceparent == kept


async def test_endpoint_saved_before_the_commit_is_in_the_claims_version(sql, outbox):
    before = await sql.fetchval("SELECT version FROM dispatcher.routing")
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ('ep', 'default', 'e', 'https://x.test/', 'wms', '{*}', 1)"
    )
    await _insert(sql)
    async with outbox.claim(10, MEBIBYTE) as claim:
        assert claim.routing_version > before


# --- the producers' role ---


@pytest.fixture
async def producer(sql, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that has nothing but what producers are granted."""
    assert await grant_producers(sql) is None
    connection = await asyncpg.connect(database)
    await connection.execute("SET ROLE dispatcher_producer")
    yield connection
    await connection.close()


async def test_a_producer_may_insert_and_learn_its_id(sql, producer):
    assert (await _insert(producer)).startswith("evt_")
    columns = {
        "id": "mine",
        "tenant": "t",
        "occurred_at": None,
        "ordering_key": "k",
        "labels": "{}",
        "traceparent": "t",
    }
    del columns["occurred_at"]
    assert await _insert(producer, **columns) == "mine"
    again = await producer.execute(
        "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('mine', 'a.b', '{}') ON CONFLICT (id) DO NOTHING"
    )
    assert again == "INSERT 0 0"
    assert await producers_problems(sql) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT data FROM dispatcher.outbox",
        "SELECT * FROM dispatcher.endpoint",
        "SELECT * FROM dispatcher.endpoint_secret",
        "SELECT * FROM dispatcher.event",
        "UPDATE dispatcher.outbox SET type = 'a.c'",
        "DELETE FROM dispatcher.outbox",
        "INSERT INTO dispatcher.outbox (type, data, inserted_at) VALUES ('a.b', '{}', now())",
        "INSERT INTO dispatcher.outbox (type, data, position) VALUES ('a.b', '{}', 1)",
        "INSERT INTO dispatcher.outbox (type, data, consumed_at) VALUES ('a.b', '{}', now())",
        "SELECT setval('dispatcher.event_number', 1)",
    ],
)
async def test_a_producer_may_do_nothing_else(producer, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await producer.execute(statement)


async def test_a_missing_grant_is_a_problem_in_words(sql, producer):
    del producer
    async with sql.transaction():
        await sql.execute("REVOKE INSERT (type) ON dispatcher.outbox FROM dispatcher_producer")
        problems = await producers_problems(sql)
        await sql.execute("GRANT INSERT (type) ON dispatcher.outbox TO dispatcher_producer")
    (problem,) = problems
    assert problem.endswith("GRANT INSERT (type) ON dispatcher.outbox TO dispatcher_producer")


async def test_picked_events_of_other_tenants_are_claimed_before_a_backlog(sql, outbox):
    await _insert_endpoints(sql, "flood", "one", "two")
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, tenant, data)"
        " SELECT 'a.b', 'flood', '{}' FROM generate_series(1, 50)"
    )
    await _insert(sql, tenant="one", id="one-1")
    await _insert(sql, tenant="two", id="two-1")
    await _insert(sql, tenant="one", id="one-2")
    async with outbox.claim(10, MEBIBYTE):
        pass
    pick = await outbox.pick(2)
    assert [*pick.tenants.values()] == ["one", "two"]
    async with outbox.claim(2, MEBIBYTE, None, pick.tenants) as claim:
        assert [event.id for event in claim.events] == ["one-1", "two-1"]
        assert claim.accepted_at is not None
    assert [*(await outbox.pick(10)).tenants.values()] == ["one"]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.outbox WHERE data IS NOT NULL") == 41


async def test_tenants_without_an_endpoint_share_one_turn(sql, outbox):
    """A producer invents tenants as it likes: 60,000 of them delayed a tenant with an endpoint by 8 s."""
    await _insert_endpoints(sql, "real")
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, tenant, data)"
        " SELECT 'a.b', 'invented' || g, '{}' FROM generate_series(1, 100) AS g"
    )
    await _insert(sql, tenant="real", id="real-1")
    async with outbox.claim(10, MEBIBYTE):
        pass
    pick = await outbox.pick(4)
    assert [*pick.tenants.values()] == ["", "real", "", ""]
    async with outbox.claim(4, MEBIBYTE, None, pick.tenants) as claim:
        assert [event.tenant for event in claim.events] == [
            "invented11",
            "real",
            "invented12",
            "invented13",
        ]


async def test_large_picked_events_leave_room_for_other_tenants_in_turn(sql, outbox):
    await _insert_endpoints(sql, "flood", "large", "small")
    await _insert(sql, tenant="flood")
    for _ in range(3):
        await _insert(sql, tenant="large", data='{"a":"' + "x" * 1_000 + '"}')
    await _insert(sql, tenant="small", id="small-1")
    async with outbox.claim(1, MEBIBYTE):
        pass
    pick = await outbox.pick(10)
    async with outbox.claim(10, 1_010, None, pick.tenants) as claim:
        assert [event.tenant for event in claim.events] == ["large", "small"]
    assert [*(await outbox.pick(10)).tenants.values()] == ["large", "large"]


async def test_pick_scans_across_gaps_and_slices_of_a_backlog(sql, outbox, monkeypatch):
    await _insert_endpoints(sql, "flood", "one", "two")
    monkeypatch.setattr("dispatcher.store.outbox.SCAN_POSITIONS", 40)
    monkeypatch.setattr("dispatcher.store.outbox.SCAN_EVENTS_MAX", 5)
    flood = "SELECT 'a.b', 'flood', '{}' FROM generate_series(1, 50)"
    insert = "INSERT INTO dispatcher.outbox (type, tenant, data)"
    await sql.execute(f"{insert} {flood}")
    await sql.execute(f"{insert} SELECT 'a.b', 'one', '{{}}' FROM generate_series(1, 12)")
    drawn = await sql.fetchval("SELECT nextval('dispatcher.event_number')")
    await sql.execute(
        f"ALTER TABLE dispatcher.outbox ALTER COLUMN position RESTART WITH {drawn + 5_000}"
    )
    await sql.execute(f"{insert} {flood}")
    await _insert(sql, tenant="two", id="two-1")
    async with outbox.claim(10, MEBIBYTE):
        pass
    pick = await outbox.pick(20)
    assert [*pick.tenants.values()] == ["one", "two"] + ["one"] * 11
    await _insert(sql, tenant="two", id="two-2")
    assert [*(await outbox.pick(20)).tenants.values()] == ["two"]
