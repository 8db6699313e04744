"""A search finds text in payloads, page by page, within its budget and its tenant."""

import asyncio
import itertools
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations import text_search
from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.admin.operations.text_search import WAITING_MAX, SearchQueue, TextSearch
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.core.errors import TooManyError
from dispatcher.core.printable import escape_json, is_text
from dispatcher.core.text_pattern import text_pattern
from dispatcher.store import search as store_search
from dispatcher.store.search import TextQuery
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres

HOSTILE = Path(__file__).parent.parent / "console" / "hostile.json"
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES = itertools.count()


async def store(story: Story, event_id: str, data: str, **values: Any) -> None:
    """Store an accepted event whose data are a part of its wire body; later calls are newer events."""
    midnight = datetime.combine(story.now.date(), time(), UTC)
    first = max(story.now - timedelta(minutes=10), midnight)
    at = first + (story.now - first) * next(_PLACES) / 10_000
    head = '{"type":"order.created","timestamp":"2026-05-29T14:32:11Z","data":'
    await story._connection.execute(
        "INSERT INTO dispatcher.event (day, id, type, tenant, profile, data_offset, data_length, bytes,"
        " occurred_at, labels, inserted_at, accepted_at)"
        " VALUES ($1, $2, 'order.created', $3, 'wms', $4, $5, $6, $7, $8, $7, $7)",
        at.date(),
        event_id,
        values.get("tenant", "default"),
        len(head),
        len(data.encode()),
        f"{head}{data}}}".encode(),
        at,
        orjson.dumps(values.get("labels", {})).decode(),
    )


async def events_found(deployment: Deployment, text: str, actor: Any = ALL) -> list[str]:
    page = await Events(deployment).page(actor, EventsQuery.of(q=text))
    found = [one.id for one in page.items]
    if page.next_cursor is not None:  # the text is a label or an id, and contents are the next page
        assert (bool(found), page.searched_back_to) == (True, None)
        page = await Events(deployment).page(actor, EventsQuery.of(q=text, cursor=page.next_cursor))
        assert page.next_cursor is None
        found += [one.id for one in page.items]
    return found


async def test_search_of_text_finds_payloads_of_the_tenant(
    deployment: Deployment, story: Story
) -> None:
    await store(story, "a1", '{"order_id": "ORD-2026-1234", "discount": "50%_\\\\x"}')
    await store(story, "a2", escape_json('{"name": "สมชาย ใจดี", "path": "a/b"}', ascii_only=True))
    await store(story, "a3", '{"name": "สมชาย"}')
    await store(story, "a4", '{"order_id": "ord-2026-1234"}', tenant="acme")
    await store(story, "a5", "{}", labels={"customer": "Éclair GmbH"})
    await Events(deployment).publish(
        ALL, NewEvent(type="a.b", data='{"order_id": "ORD-2026-1234"}', id="w1")
    )
    for text, wanted in {
        "ord-2026-1234": ["w1", "a4", "a1"],
        "D-2026-12": ["w1", "a4", "a1"],
        "ORDER_ID": ["w1", "a4", "a1"],
        "สมชาย": ["a3", "a2"],
        "éclair": ["a5"],
        "CUSTOMER": ["a5"],
        "a/b": ["a2"],
        "50%": ["a1"],
        "%_\\x": ["a1"],
        "O%D": [],
        "ORD_2026": [],
        "timestamp": [],
        "Éclair GmbH": ["a5"],
        "customer=Éclair GmbH": ["a5"],
        "' OR true --": [],
        "A3": ["a3"],
        "created": ["a5", "a4", "a3", "a2", "a1"],
    }.items():
        assert await events_found(deployment, text) == wanted, text
    assert await events_found(deployment, "ord-2026", ACME) == ["a4"]
    assert await events_found(deployment, "สมชาย", ACME) == []


async def test_search_of_hostile_text_finds_what_contains_it(
    deployment: Deployment, story: Story
) -> None:
    hostile = [
        text for text in orjson.loads(HOSTILE.read_bytes()) if text.strip() and is_text(text)
    ]
    await store(story, "plain", "{}")
    await store(story, "hostile", orjson.dumps({"texts": hostile}).decode().replace("\\u0000", ""))
    unlike = []
    async with deployment.database.reading() as connection:
        for text in hostile:
            query = TextQuery(pattern=text_pattern(text[:256]))
            day = story.now.date()
            rows = await store_search.search_slice(connection, query, day, EARLIEST, None, 3)
            if [row.id for row in rows] != ["hostile"]:
                unlike.append((text, [row.id for row in rows]))
    assert len(hostile) > 150
    assert unlike == []


async def test_search_over_budget_continues_at_its_cursor(
    deployment: Deployment, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        await store(
            story, f"e{number:02}", "{" + ('"x": "needle"' if number % 5 == 0 else "") + "}"
        )
    monkeypatch.setattr(text_search, "SLICE_ROWS_FIRST", 3)
    monkeypatch.setattr(text_search, "SLICE_ROWS_MAX", 3)
    settings = deployment.settings.search.model_copy(update={"time_budget": 0.0})
    object.__setattr__(deployment.settings, "search", settings)
    pages, seen, cursor, back_to = 0, [], None, []
    while True:
        page = await Events(deployment).page(ALL, EventsQuery.of(q="needle", cursor=cursor))
        assert page.searched_back_to is not None
        seen += [one.id for one in page.items]
        back_to.append(page.searched_back_to)
        pages, cursor = pages + 1, page.next_cursor
        if cursor is None:
            break
    assert seen == ["e10", "e05", "e00"]
    assert pages >= 4, "each page reads one slice"
    assert back_to == sorted(back_to, reverse=True)


async def test_search_with_slow_statement_ends_after_last_slice(
    deployment: Deployment, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await store(story, f"e{number}", '{"x": "needle"}')
    monkeypatch.setattr(text_search, "SLICE_ROWS_FIRST", 2)
    monkeypatch.setattr(text_search, "SLICE_ROWS_MAX", 2)
    settings = deployment.settings.search.model_copy(update={"time_budget": 0.3})
    object.__setattr__(deployment.settings, "search", settings)
    read, read_count = store_search.search_slice, 0

    async def read_slowly(connection: Any, *arguments: Any) -> Any:
        nonlocal read_count
        read_count += 1
        if read_count == 2:
            await connection.fetch("SELECT pg_sleep(4)")
        return await read(connection, *arguments)

    monkeypatch.setattr(store_search, "search_slice", read_slowly)
    page = await Events(deployment).page(ALL, EventsQuery.of(q="needle"))
    assert [one.id for one in page.items] == ["e3", "e2"]
    assert page.next_cursor is not None
    rest = await Events(deployment).page(ALL, EventsQuery.of(q="needle", cursor=page.next_cursor))
    assert [one.id for one in rest.items] == ["e1", "e0"]


async def test_search_rests_next_to_transactions_not_next_to_heartbeats(
    database: str, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks_count = store_search.limit_statements, 0

    async def count(connection: Any, milliseconds: int) -> bool:
        nonlocal looks_count
        looks_count += 1
        return await look(connection, milliseconds)

    monkeypatch.setattr(store_search, "limit_statements", count)
    now, slice_seconds = asyncio.get_running_loop().time, 0.1
    search = TextSearch(deployment.database, 60.0)

    async def looks(*sightings: bool) -> int:
        nonlocal looks_count
        looks_count = 0
        search._sightings.clear()
        search._sightings.extend(sightings)
        await search._rest(slice_seconds)
        return looks_count

    assert await looks(True) == 0, "one heartbeat"
    assert await looks(True, True) == 3, "the load has ended"
    other = await asyncpg.connect(database)
    try:
        await other.execute("BEGIN")
        began = now()
        assert await looks(True, True) > 3
        assert now() - began > 0.99 * text_search.REST_SHARE_BUSY * slice_seconds
    finally:
        await other.close()


async def test_search_of_deliveries_pages_through_names_and_payloads(
    deployment: Deployment, story: Story
) -> None:
    erp, crm = await story.endpoint("ERP needle"), await story.endpoint("crm")
    await story.event("e1", labels='{"kind": "needle"}')
    named = await story.delivery(erp, "e1", "failed")
    exact = await story.delivery(crm, "e1")
    for event_id, text in {"e2": "NEEDLE", "e3": "hay", "e4": "a needle too"}.items():
        await store(story, event_id, f'{{"x": "{text}"}}')
    payload = [await story.delivery(crm, "e2", "failed"), await story.delivery(crm, "e4")]
    also_named = await story.delivery(erp, "e4", "failed")
    await story.delivery(crm, "e3")
    operations = DeliveryOperations(deployment)
    for limit in (1, 2, 50):
        seen: list[str] = []
        cursor = None
        while True:
            query = DeliveriesQuery.of(q="needle", limit=limit, cursor=cursor)
            page = await operations.page(ALL, query)
            seen += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(seen[:2]) == sorted([exact, named]), "the label is exact"
        assert seen[2:] == [also_named, *reversed(payload)]
    failed = await operations.page(ALL, DeliveriesQuery.of(q="needle", state="failed"))
    assert {one.id for one in failed.items} == {named, also_named}
    assert (failed.searched_back_to, failed.next_cursor is None) == (None, False), (
        "contents are the next page"
    )
    query = DeliveriesQuery.of(q="needle", state="failed", cursor=failed.next_cursor)
    rest = await operations.page(ALL, query)
    assert [one.id for one in rest.items] == [payload[0]]
    assert rest.searched_back_to is not None
    assert (await operations.page(ACME, DeliveriesQuery.of(q="needle"))).items == []


async def test_search_queue_rejects_what_would_wait_too_long() -> None:
    queue = SearchQueue()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def search() -> None:
        async with queue.place():
            entered.set()
            await leave.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WAITING_MAX + 1):
            tasks.create_task(search())
        await entered.wait()
        with pytest.raises(TooManyError) as caught:
            async with queue.place():
                pass
        assert caught.value.code == "too_many_searches"
        leave.set()
