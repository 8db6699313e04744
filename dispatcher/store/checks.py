"""What `dispatcher check` and `dispatcher dev` ask of a server before they rely on it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from dispatcher.store.columns import first_uuid
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Database, Reach

_SEALED = statement("endpoint_secret_list")
_SERVER_FACTS = statement("server_facts")
_LOCK_ROOM = statement("server_lock_room")
_MISSING_PRIVILEGES = statement("schema_missing_privileges")
_STRANGERS = statement("schema_strangers")
_PRODUCER_EXCESS = statement("producer_excess")
_PRODUCER_ROLE_SET = statement("producer_role_set")
_PRODUCER_TRIAL = statement("producer_trial")
_SCHEMA_MARK = statement("schema_mark")
_SCHEMA_MARK_DEV = statement("schema_mark_dev")
_ENDPOINT_PROGRESS = statement("endpoint_progress")

DEV_MARK = "made by dispatcher dev"


class ServerFacts(NamedTuple):
    """What kind of server this is."""

    major: int
    version: str
    encoding: str
    now: datetime
    read_only: bool
    user_name: str


class Progress(NamedTuple):
    """How an endpoint's deliveries stand."""

    endpoint_id: str
    delivered: int
    waiting: int
    retrying: int
    failed: int
    cancelled: int
    attempts: int


async def server_facts(connection: "Reach") -> ServerFacts:
    """Returns what kind of server this is."""
    row = await connection.fetchrow(_SERVER_FACTS)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return ServerFacts(**row)


async def lock_room(connection: "Reach") -> tuple[int, int]:
    """Return how many locks the server can hold, and how many partitions history has."""
    row = await connection.fetchrow(_LOCK_ROOM)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return row["locks_max"], row["partitions"]


async def missing_privileges(connection: "Reach") -> list[str]:
    """Return the privileges that the connected user lacks, human-readable; the schema must exist."""
    return [row["missing"] for row in await connection.fetch(_MISSING_PRIVILEGES)]


async def strangers(connection: "Reach") -> list[str]:
    """Returns the roles that may place objects where our names resolve, and the objects that they placed."""
    return [row["stranger"] for row in await connection.fetch(_STRANGERS)]


async def producer_excess(connection: "Reach") -> list[str]:
    """Returns the rights that the producers' role has beyond what it needs."""
    return [row["excess"] for row in await connection.fetch(_PRODUCER_EXCESS)]


async def may_act_as_producer(connection: "Reach") -> bool:
    """Returns whether the connected user can become a producer, as `producer_insert_problem` does."""
    return bool(await connection.fetchval(_PRODUCER_ROLE_SET))


async def producer_insert_problem(connection: "Reach") -> str | None:
    """Inserts events as `dispatcher_producer` and rolls back; returns why that fails, None if it works."""
    transaction = connection.transaction()  # a savepoint, where the caller has a transaction
    await transaction.start()
    try:
        await connection.execute(_PRODUCER_TRIAL)
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await transaction.rollback()
    return None


async def schema_mark(connection: "Reach") -> str | None:
    """Return the schema's record of its creator, None where there is no schema."""
    mark: str | None = await connection.fetchval(_SCHEMA_MARK)
    return mark


async def mark_schema(connection: "Reach") -> None:
    """Marks the schema as one that `dispatcher dev` made."""
    await connection.execute(_SCHEMA_MARK_DEV)


async def progress(
    database: "Database", endpoint_ids: Sequence[str], since: datetime
) -> list[Progress]:
    """Returns how the deliveries made since then stand, for endpoints that have any."""
    day = since.astimezone(UTC).date()
    async with database.transaction() as connection:
        await connection.execute(PLAN_FOR_VALUES)
        rows = await connection.fetch(
            _ENDPOINT_PROGRESS, list(endpoint_ids), first_uuid(since), day
        )
    return [Progress(*row) for row in rows]


async def sealed_secrets(connection: "Reach | Database") -> list[tuple[str, str, bytes]]:
    """Return every encrypted secret: its endpoint, the id of its key, the bytes."""
    return [(row[0], row[1], row[2]) for row in await connection.fetch(_SEALED)]
