"""Migrates the schema: numbered files, each applied once and recorded with its checksum.

`NNNN_pre_what.sql` is compatible with the previous version and may be applied while that runs.
`NNNN_post_what.sql` requires that all replicas run the new version. One migration runs at a time, under a
lock on the list of migrations, which only its owner can take. Each file is applied in its own transaction
with a short lock_timeout and retried, because a migration that waits for a lock would block every session
behind it. It reports the sessions that hold the locks, and gives up after half a minute. Applied `pre`
files that are unknown to this version are accepted, because a newer version is being rolled out. An unknown
`post` file is not accepted. `dispatcher run` never migrates.

Every step is a transaction that begins with `migration_begin.sql`. Objects bind to the names that
search_path resolves when they are created, and a setting of the role or the database (the old string
syntax, for example) would change the meaning of a file. The constraints, defaults, triggers and functions
of the migrated schema are then compared with `definitions.json`.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import asyncpg
import orjson

from dispatcher.core.errors import SchemaError
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    from dispatcher.store.pool import Reach

Result = TypeVar("Result")

_BEGIN = statement("migration_begin")
_LOCK = statement("migration_lock")
_HOLDERS = statement("server_lock_holders")
_STATE = statement("schema_state")
_CREATE = statement("schema_create")
_BOOTSTRAP = statement("schema_bootstrap")
_DEFINITIONS = statement("schema_definitions")
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
    """Return the migrations of this version, in order."""
    found = []
    for entry in resources.files("dispatcher.store").joinpath("migrations").iterdir():
        if entry.name.endswith(".sql"):
            sql = entry.read_text(encoding="utf-8")
            name = entry.name.removesuffix(".sql")
            found.append(
                Migration(name, name.split("_")[1], sql, hashlib.sha256(sql.encode()).hexdigest())
            )
    return sorted(found)


async def _state(connection: "Reach") -> "Record":
    row = await connection.fetchrow(_STATE)
    assert row is not None  # noqa: S101 -- a LEFT JOIN from one row has one
    return row


async def pending(connection: "Reach", phase: str = "all") -> list[Migration]:
    """Return the migrations of `phase` (`pre`, `post`, `all`) that have not been applied.

    Raises:
        SchemaError: an applied file was changed since, or an applied `post` file is unknown to this
        version.
    """
    if not (await _state(connection))["has_migrations"]:
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
    """Require a schema with all `pre` files and no unknown `post` file applied.

    Raises:
        SchemaError: the schema is absent, too old or too new; the message contains the fix.
    """
    missing = await pending(connection, "pre")
    if len(missing) == sum(migration.phase == "pre" for migration in known()):
        raise SchemaError("the database has no dispatcher schema; run: dispatcher migrate")
    if missing:
        raise SchemaError(
            f"the schema is too old: {', '.join(m.name for m in missing)} not applied; run: dispatcher migrate"
        )


def _nothing(_: str) -> None:
    """Ignore a report."""


@asynccontextmanager
async def step(connection: "Connection[Record]") -> AsyncIterator[None]:
    """Run the block in a transaction with the settings of a migration."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_BEGIN)
        yield


async def migrate(
    connection: "Connection[Record]",
    phase: str = "all",
    *,
    report: Callable[[str], None] = _nothing,
) -> list[str]:
    """Apply the pending migrations of `phase` and return their names, in order.

    While a lock is not available, `report` is called with a message that names the sessions that hold it.

    Raises:
        SchemaError: see `pending`; or this role may not create the schema or its tables, a lock was not
        available within half a minute, or the result differs from the definitions of this version.
    """
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise SchemaError(f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'")
    await patiently(connection, lambda: _bootstrap(connection), report)
    done: list[str] = []

    async def apply_all() -> None:
        while (name := await _apply_next(connection, phase)) is not None:
            done.append(name)

    await patiently(connection, apply_all, report)
    async with step(connection):
        is_complete = not await pending(connection)
        problems = await definition_problems(connection) if is_complete else []
    if problems:
        raise SchemaError("\n".join(problems))
    return done


async def patiently(
    connection: "Connection[Record]",
    action: Callable[[], Awaitable[Result]],
    report: Callable[[str], None] = _nothing,
) -> Result:
    """Retry an action that has a short lock_timeout, for half a minute.

    Raises:
        SchemaError: a lock was not available in this time; the message names the holders.
    """
    reported = ""
    for _ in range(_LOCK_RETRIES):
        try:
            return await action()
        except (
            asyncpg.LockNotAvailableError,
            asyncpg.DeadlockDetectedError,
            # Another process is creating the same schema or table.
            asyncpg.DuplicateSchemaError,
            asyncpg.DuplicateTableError,
            asyncpg.UniqueViolationError,
        ) as error:
            if (
                isinstance(error, asyncpg.UniqueViolationError)
                and error.schema_name != "pg_catalog"
            ):
                raise
            holders = await _holders(connection)
            if holders != reported:
                report(f"waiting for a lock; {holders}")
                reported = holders
            await asyncio.sleep(_LOCK_RETRY_SECONDS)
    raise SchemaError(
        f"a lock could not be had for half a minute; {reported}. Wait for that session or end it"
        " (SELECT pg_terminate_backend(pid)), and run the command again."
    )


async def _holders(connection: "Connection[Record]") -> str:
    async with step(connection):
        rows = await connection.fetch(_HOLDERS)
    if not rows:
        return "no session holds it now"
    return "held by " + ", ".join(_holder(row) for row in rows)


def _holder(row: "Record") -> str:
    """Return the description of a session or a prepared transaction."""
    if row["gid"] is not None:
        return (
            f"prepared transaction {row['gid']!r} (user {row['user_name']!r},"
            f" prepared {row['seconds']:.0f} s ago; end it with ROLLBACK PREPARED or COMMIT PREPARED)"
        )
    return f"pid {row['pid']} (application {row['application']!r}, user {row['user_name']!r}" + (
        f", transaction open for {row['seconds']:.0f} s)" if row["seconds"] is not None else ")"
    )


async def _bootstrap(connection: "Connection[Record]") -> None:
    async with step(connection):
        state = await _state(connection)
        if state["has_migrations"]:
            return
        user, owner = state["user_name"], state["owner"]
        if owner is None:
            try:
                await connection.execute(_CREATE)
            except asyncpg.InsufficientPrivilegeError as error:
                raise SchemaError(
                    f"role {user} may not create the schema dispatcher. Ask your DBA to run:"
                    f" CREATE SCHEMA dispatcher AUTHORIZATION {user}"
                ) from error
        elif not state["may_create"]:
            raise SchemaError(
                f"the schema dispatcher belongs to role {owner} and role {user} may not create tables in it."
                f" Ask your DBA to run: ALTER SCHEMA dispatcher OWNER TO {user}"
            )
        await connection.execute(_BOOTSTRAP)


async def _apply_next(connection: "Connection[Record]", phase: str) -> str | None:
    async with step(connection):
        if not await pending(connection, phase):
            return None  # found without a lock, so that other sessions cannot delay it
        await connection.execute(_LOCK)
        waiting = await pending(connection, phase)
        if not waiting:
            return None
        await connection.execute(waiting[0].sql)
        await connection.execute(_REMEMBER, *waiting[0][:2], waiting[0].checksum)
        return waiting[0].name


async def definitions(connection: "Reach") -> dict[str, str]:
    """Return the constraints, defaults, triggers and functions as Postgres prints them, by kind and name."""
    return {row["name"]: row["definition"] for row in await connection.fetch(_DEFINITIONS)}


def expected_definitions() -> dict[str, str]:
    """Return the definitions that the migrations of this version create."""
    text = resources.files("dispatcher.store").joinpath("definitions.json").read_bytes()
    expected: dict[str, str] = orjson.loads(text)
    return expected


async def definition_problems(connection: "Reach") -> list[str]:
    """Return the CHECKs, defaults, triggers and functions that differ from this version's.

    Additions by a newer `pre` migration are not problems.
    """
    actual = await definitions(connection)
    return [
        f"{name} of the schema is not what this version makes. Expected {expected}, found"
        f" {actual.get(name, 'nothing')}. Restore it, or migrate an empty database and move the data."
        for name, expected in expected_definitions().items()
        if actual.get(name) != expected
    ]


async def set_notify(
    connection: "Connection[Record]", *, wanted: bool, report: Callable[[str], None] = _nothing
) -> bool:
    """Attach or drop the trigger that wakes a sleeping dispatcher; return whether that was a change."""

    async def change() -> bool:
        async with step(connection):
            if await has_notify(connection) == wanted:
                return False
            await connection.execute(
                statement("producer_notify_attach" if wanted else "producer_notify_drop")
            )
            return True

    return await patiently(connection, change, report)


async def has_notify(connection: "Connection[Record]") -> bool:
    """Return whether producers' commits wake a sleeping dispatcher."""
    return bool(await connection.fetchval(statement("producer_notify_attached")))


async def grant_producers(
    connection: "Connection[Record]", *, report: Callable[[str], None] = _nothing
) -> str | None:
    """Create the role that is granted to producers; if that is not permitted, return the SQL for the DBA."""
    sql = statement("producer_role")

    async def grant() -> None:
        async with step(connection):
            if not await producers_problems(connection):
                return
            await connection.execute(sql)

    try:
        await patiently(connection, grant, report)
    except asyncpg.InsufficientPrivilegeError:
        async with step(connection):
            user = (await _state(connection))["user_name"]
        return (
            f"BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n{sql}"
            f"GRANT dispatcher_producer TO {user};\nCOMMIT;"
        )

    async def join() -> None:
        async with step(connection):
            await connection.execute(statement("producer_member"))

    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await patiently(
            connection, join, report
        )  # only `check` needs the membership, and reports if it is missing
    return None


async def producers_problems(connection: "Reach") -> list[str]:
    """Return human-readable problems of the producers' role; an empty list if it has none."""
    return [row["problem"] for row in await connection.fetch(statement("producer_role_problems"))]
