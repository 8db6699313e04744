"""Indexes of the text of ended days: made once, used by searches, and never needed by them."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations import text_search
from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.system import System
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.system import TextIndex
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.printable import escape_json, is_text
from dispatcher.maintenance.text_indexes import TextIndexes
from dispatcher.store.pool import Database
from tests.store.test_search import HOSTILE
from tests.support.daemon import until
from tests.support.history import make_day
from tests.support.story import ACME, ALL, KEY

pytestmark = pytest.mark.postgres


class History:
    """A database of its own with two ended days and the current one."""

    def __init__(self, url: str, sql: asyncpg.Connection, deployment: Deployment) -> None:
        self.url = url
        self.sql = sql
        self.deployment = deployment
        self.days: list[date] = []

    async def fill(self, texts: list[str]) -> None:
        """Store each text in the payload of an event of each day."""
        for day in self.days:
            noon = datetime.combine(day, time(), UTC)
            await self.sql.executemany(
                "INSERT INTO dispatcher.event (day, id, type, tenant, profile, data_offset, data_length, bytes,"
                " occurred_at, labels, inserted_at, accepted_at)"
                " VALUES ($1, $2, 'order.created', 'default', 'wms', 8, $3, $4, $5, $6, $5, $5)",
                [
                    (
                        day,
                        f"{day:%d}-{number}",
                        len(data),
                        b'{"data":' + data + b"}",
                        noon + timedelta(milliseconds=number),
                        orjson.dumps({"depot": f"D{number}"}).decode(),
                    )
                    for number, text in enumerate(texts)
                    for data in (
                        escape_json(
                            orjson.dumps({"t": text}).decode(), ascii_only=number % 2 == 0
                        ).encode(),
                    )
                ],
            )
        await self.sql.execute("ANALYZE dispatcher.event")

    async def found(self, text: str) -> list[str]:
        """Return the ids of the events with a text, page by page."""
        ids: list[str] = []
        cursor = None
        while True:
            page = await Events(self.deployment).page(
                ALL, EventsQuery.of(q=text, limit=100, cursor=cursor)
            )
            ids += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return ids

    def indexing(self, incarnation: str = "a") -> TextIndexes:
        """Return what makes the indexes, as one replica."""
        return TextIndexes(self.url, incarnation, ended_seconds=0)

    async def scans(self) -> int:
        """Return how often an index of a text was read."""
        value = await self.sql.fetchval(
            "SELECT coalesce(sum(idx_scan), 0)::integer FROM pg_stat_user_indexes WHERE indexrelname LIKE '%_text'"
        )
        return int(value)

    async def indexes(self) -> dict[str, bool]:
        """Return the indexes of texts, and whether each is valid."""
        rows = await self.sql.fetch(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
            " WHERE indexrelid::regclass::text LIKE '%\\_text'"
        )
        return {row[0].removeprefix("dispatcher."): row[1] for row in rows}


@pytest.fixture
async def history(fresh_database: str) -> AsyncIterator[History]:
    sql = await asyncpg.connect(fresh_database)
    pool = Database(fresh_database, connections_max=4)
    await pool.open()
    environ = {"DISPATCHER_DATABASE_URL": fresh_database, "DISPATCHER_SECRET_KEYS": KEY}
    history = History(fresh_database, sql, deployment_of(load_settings(None, environ), pool))
    today = await sql.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    await sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('a', 'a', '1', now() + interval '1 minute')"
    )
    history.days = [await make_day(sql, 3), await make_day(sql, 2), today]
    yield history
    await pool.close()
    await sql.close()


def names(history: History) -> set[str]:
    """Return the indexes that ended days get: those of the test, and that of yesterday's empty partition."""
    days = [*history.days[:2], history.days[2] - timedelta(days=1)]
    return {f"event_{day:%Y%m%d}_text" for day in days}


async def test_ended_days_get_an_index_that_searches_read(history: History) -> None:
    texts = ["ORD-2026-1234", "50%_off", "สมชาย ใจดี", "Straße É", 'a"b\\c/d', "deliver before noon"]
    await history.fill(texts + ["filler"] * 2_000)
    queries = [
        "ord-2026-1234",
        "50%_",
        "สมชาย",
        "straße",
        "É",
        "b\\c/d",
        "before",
        "depot",
        "D3",
        "no such",
    ]
    before = {text: await history.found(text) for text in queries}
    assert [len(before[text]) for text in ("ord-2026-1234", "before", "no such")] == [3, 3, 0]
    await history.sql.execute("CREATE SCHEMA elsewhere")
    await history.sql.execute("CREATE EXTENSION pg_trgm SCHEMA elsewhere")
    indexes = history.indexing()
    assert await indexes.round() == 3
    assert await history.indexes() == dict.fromkeys(names(history), True), "not the current day"
    assert await indexes.round() == 0
    status = await System(history.deployment).show(ACME)
    assert status.text_index.extension_installed
    indexed = {f"event_{day.replace('-', '')}_text" for day in status.text_index.days}
    assert indexed == names(history)
    assert await history.scans() == 0
    assert {text: await history.found(text) for text in queries} == before
    await history.deployment.database.close()  # its sessions report what they read at their end
    await until(history.scans, seconds=10, what="scans of the indexes")


async def test_hostile_texts_are_found_by_the_index(history: History) -> None:
    texts = [one for one in orjson.loads(HOSTILE.read_bytes()) if is_text(one) and one.strip()]
    texts = [one for one in texts if len(one) <= 256]
    await history.fill(texts)
    chosen = texts[::4]
    before = {text: await history.found(text) for text in chosen}
    await history.sql.execute("CREATE EXTENSION pg_trgm")
    assert await history.indexing().round() == 3
    for text in chosen:
        assert await history.found(text) == before[text], text


async def test_index_that_a_crash_left_is_made_again(history: History) -> None:
    await history.fill(["ORD-2026-1234"])
    await history.sql.execute("CREATE EXTENSION pg_trgm")
    indexes = history.indexing()
    await indexes.round()
    await history.sql.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE '%\\_text'"
    )
    assert len(await history.found("2026-1234")) == 3, "an invalid index is not read"
    assert await indexes.round() == 3
    assert await history.indexes() == dict.fromkeys(names(history), True)


async def test_first_of_two_replicas_makes_the_indexes(history: History) -> None:
    await history.fill(["ORD-2026-1234"])
    await history.sql.execute("CREATE EXTENSION pg_trgm")
    await history.sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('b', 'b', '1', now() + interval '1 minute')"
    )
    assert await history.indexing("b").round() == 0, "a is alive"
    await history.sql.execute("UPDATE dispatcher.replica SET expires_at = now() WHERE name = 'a'")
    assert await history.indexing("a").round() == 0, "a has lost its lease"
    assert await history.indexing("b").round() == 3
    assert await history.indexes() == dict.fromkeys(names(history), True)


async def test_without_the_extension_nothing_is_made(history: History) -> None:
    indexes = history.indexing()
    assert await indexes.round() == 0
    assert await indexes.round() == 0
    assert await history.indexes() == {}
    status = await System(history.deployment).show(ALL)
    assert status.text_index == TextIndex(enabled=False, extension_installed=False, days=[])


async def test_index_that_is_too_slow_is_left_for_slices(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history.fill(["deliver before noon"] * 400)
    await history.sql.execute("CREATE EXTENSION pg_trgm")
    await history.indexing().round()
    slow = (
        "CREATE OR REPLACE FUNCTION dispatcher.event_text(id text, type text, labels jsonb, data json, bytes bytea)"
        " RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN 'deliver before'; END $$"
    )
    await history.sql.execute(slow)
    monkeypatch.setattr(text_search, "INDEX_SECONDS_MAX", 0.05)
    found: Any = await history.found("before noon")
    assert len(found) == len(set(found)) == 1_200
