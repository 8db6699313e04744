"""Brings the schema up: numbered files, each applied once, each remembered with its checksum.

`NNNN_pre_what.sql` is harmless to the version before and may be applied while it runs;
`NNNN_post_what.sql` needs the new version everywhere. One migration runs at a time (a
transaction-level advisory lock), each file in a transaction of its own with a short lock_timeout,
retried: a migration that waits for a lock would make everybody wait behind it. Applied `pre` files
that this version does not know are accepted (a newer version is being rolled out); an unknown
`post` file is not. `dispatcher run` never migrates.
"""

import asyncio
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from dispatcher.core.errors import SchemaError
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    from dispatcher.store.pool import Reach

_BOOTSTRAP = statement("schema_bootstrap")
_APPLIED = statement("schema_applied")
_REMEMBER = statement("schema_remember")
_LOCK_RETRIES = 40
_LOCK_RETRY_SECONDS = 0.25


class Migration(NamedTuple):
    """One file of `migrations/`."""

    name: str
    phase: str
    sql: str
    checksum: str


def known() -> list[Migration]:
    """Returns the migrations of this version, in order."""
    found = []
    for entry in resources.files("dispatcher.store").joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            sql = entry.read_text(encoding="utf-8")
            name = entry.name.removesuffix(".sql")
            found.append(
                Migration(name, name.split("_")[1], sql, hashlib.sha256(sql.encode()).hexdigest())
            )
    return sorted(found)


async def pending(connection: "Reach", phase: str = "all") -> list[Migration]:
    """Returns what has not been applied of `phase` (`pre`, `post`, `all`).

    Raises:
        SchemaError: an applied file was changed since, or an applied `post` file is unknown to this
        version.
    """
    if not await connection.fetchval(
        "SELECT to_regclass('dispatcher.schema_migration') IS NOT NULL"
    ):
        applied: dict[str, str] = {}
    else:
        applied = {row["name"]: row["checksum"] for row in await connection.fetch(_APPLIED)}
    migrations = {migration.name: migration for migration in known()}
    problems = [
        f"migration {name} was applied with other contents than this version has; reinstall the version that made it"
        for name, checksum in applied.items()
        if name in migrations and migrations[name].checksum != checksum
    ]
    problems += [
        f"the schema is too new: migration {name} is unknown to this version; upgrade dispatcher"
        for name in applied
        if name not in migrations and name.split("_")[1] == "post"
    ]
    if problems:
        raise SchemaError("\n".join(problems))
    return [m for m in migrations.values() if m.name not in applied and phase in ("all", m.phase)]


async def require(connection: "Reach") -> None:
    """Checks that the schema fits: all `pre` files applied, no unknown `post` one.

    Raises:
        SchemaError: absent, too old or too new; the text says what to do.
    """
    missing = await pending(connection, "pre")
    if len(missing) == sum(migration.phase == "pre" for migration in known()):
        raise SchemaError("the database has no dispatcher schema; run: dispatcher migrate")
    if missing:
        raise SchemaError(
            f"the schema is too old: {', '.join(m.name for m in missing)} not applied; run: dispatcher migrate"
        )


async def migrate(connection: "Connection[Record]", phase: str = "all") -> list[str]:
    """Applies what is pending of `phase` and returns the names, in order.

    Raises:
        SchemaError: see `pending`; or another migration held a lock for half a minute.
    """
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise SchemaError(f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'")
    await connection.execute(_BOOTSTRAP)
    done = []
    for _ in range(_LOCK_RETRIES):
        try:
            while (name := await _apply_next(connection, phase)) is not None:
                done.append(name)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_LOCK_RETRY_SECONDS)
        else:
            return done
    raise SchemaError(
        "a lock was not to be had for half a minute: another migration or a long transaction; try again"
    )


async def _apply_next(connection: "Connection[Record]", phase: str) -> str | None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        await connection.execute("SELECT pg_advisory_xact_lock(1684632432, 0)")
        waiting = await pending(connection, phase)
        if not waiting:
            return None
        await connection.execute(waiting[0].sql)
        await connection.execute(_REMEMBER, *waiting[0][:2], waiting[0].checksum)
        return waiting[0].name


async def set_notify(connection: "Connection[Record]", *, wanted: bool) -> bool:
    """Attaches or drops the trigger that wakes a sleeping dispatcher; returns whether it changed anything."""
    if await has_notify(connection) == wanted:
        return False
    await connection.execute(statement("notify_attach" if wanted else "notify_drop"))
    return True


async def has_notify(connection: "Connection[Record]") -> bool:
    """Tells whether producers' commits wake a sleeping dispatcher."""
    return bool(await connection.fetchval(statement("notify_attached")))


async def grant_producers(connection: "Connection[Record]") -> str | None:
    """Makes the role that producers are granted; returns the SQL for the DBA where that is not permitted."""
    sql = statement("producer_role")
    try:
        async with connection.transaction():
            await connection.execute(sql)
    except asyncpg.InsufficientPrivilegeError:
        return sql
    return None


async def producers_problems(connection: "Connection[Record]") -> list[str]:
    """Returns what the producers' role lacks, in words; nothing if it is as it should be."""
    return [row["problem"] for row in await connection.fetch(statement("producer_role_problems"))]
