"""The server itself: its kind, its limits and its load."""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from dispatcher.core.errors import DataFaultError
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_SERVER_FACTS = statement("server_facts")
_LOCK_ROOM = statement("server_lock_room")
_JSON_KIND = statement("server_json_type")
_SYSTEM_POSTGRES = statement("server_status")


class ServerFacts(NamedTuple):
    """What kind of server this is."""

    major: int
    version: str
    encoding: str
    now: datetime
    read_only: bool
    user_name: str


class ServerStatus(NamedTuple):
    """The load of the database."""

    version: str
    bytes: int
    connections_max: int
    connections_count: int
    notify_queue_usage: float
    oldest_xmin_age: int | None
    oldest_transaction_seconds: float | None
    shards_free_count: int
    now: datetime


async def server_facts(connection: "Reach") -> ServerFacts:
    """Return what kind of server this is."""
    row = await connection.fetchrow(_SERVER_FACTS)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return ServerFacts(**row)


async def lock_room(connection: "Reach") -> tuple[int, int]:
    """Return how many locks the server can hold, and how many partitions history has."""
    row = await connection.fetchrow(_LOCK_ROOM)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return row["locks_max"], row["partitions"]


async def json_type(database: Database, text: str) -> str | None:
    """Return what kind of JSON a text is (`object`, `array`, ...); None: it is none.

    Postgres decides because it validates what producers insert: no two parsers agree on every text.
    """
    try:
        kind: str | None = await database.fetch_value(_JSON_KIND, text)
    except (DataFaultError, asyncpg.StatementTooComplexError):
        return None
    return kind


async def server_status(connection: "Reach") -> ServerStatus:
    """Return the load of the database."""
    row = await connection.fetchrow(_SYSTEM_POSTGRES)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return ServerStatus(*row)
