"""`dispatcher migrate`: migrate the schema, and set up the producers' role and the wake-up trigger."""

from pathlib import Path

import asyncpg
import typer
import uvloop

from dispatcher.cli.output import say, tell
from dispatcher.cli.session import FAILED, database_source, guarded, settings_of
from dispatcher.config.database_url import UrlSource
from dispatcher.config.settings import Settings
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.store import distribution
from dispatcher.store import migrate as migrations
from dispatcher.store.connector import Connector
from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema

CONNECT_SECONDS_MAX = 10.0


def migrate(config: Path | None, *, check: bool, phase: str, distributes: bool = False) -> None:
    """Apply pending migrations, and distribute the history if asked to; or list them."""

    async def run() -> int:
        settings = settings_of(config)
        if check:
            return await _show(settings, phase)
        code = await apply(settings, phase)
        if distributes and code == 0:
            await _distribute(settings)
        return code

    codes: list[int] = []
    guarded(lambda: codes.append(uvloop.run(run())))
    if codes[0]:
        raise typer.Exit(codes[0])


async def connect(source: str | UrlSource) -> "asyncpg.Connection[asyncpg.Record]":
    """Open a separate connection, because a migration may exceed the pool's statement timeout.

    Raises:
        ConfigurationError: the URL is malformed. StoreUnavailableError: the database cannot be reached.
    """
    try:
        return await Connector(source).connect(
            seconds=CONNECT_SECONDS_MAX,
            purpose="migrate",
            statement_cache_size=0,  # there may be a transaction pooler in between
        )
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.InternalClientError) as error:
        raise StoreUnavailableError(
            f"no connection to Postgres: {str(error) or type(error).__name__}"
        ) from error


async def _show(settings: Settings, phase: str) -> int:
    connection = await connect(database_source(settings))
    try:
        async with migrations.step(connection):
            waiting = await migrations.pending(connection, phase)
    finally:
        await connection.close()
    for migration in waiting:
        say(migration.name)
    if waiting:
        tell(f"{len(waiting)} pending; `dispatcher migrate` applies them")
        return FAILED
    tell("nothing is pending")
    return 0


async def _distribute(settings: Settings) -> None:
    connection = await connect(database_source(settings))
    try:
        is_new = await distribution.distribute(connection, report=tell)
    finally:
        await connection.close()
    tell(
        "the history is distributed by event id" if is_new else "the history was distributed before"
    )


async def apply(settings: Settings, phase: str) -> int:
    """Apply pending migrations, and set up role, trigger and partitions according to the settings."""
    source = database_source(settings)
    connection = await connect(source)
    try:
        for name in await migrations.migrate(connection, phase, report=tell):
            tell(f"{name} applied")
        async with migrations.step(connection):
            is_incomplete = bool(await migrations.pending(connection, "pre"))
        if is_incomplete:
            tell("the schema is not complete yet: run `dispatcher migrate --phase pre` first")
            return FAILED
        wanted = settings.intake.notify
        if await migrations.set_notify(connection, wanted=wanted, report=tell):
            tell(f"the wake-up trigger was {'attached' if wanted else 'dropped'} (intake.notify)")
        sql = await migrations.grant_producers(connection, report=tell)
        await distribution.refresh(connection)
    finally:
        await connection.close()
    if sql is not None:
        tell("this user cannot create the role dispatcher_producer; ask your DBA to run:")
        say(sql)
    database = Database(source, connections_max=1)
    await database.open()
    try:
        made = await Schema(database).make_partitions(settings.retention.partitions_ahead_days)
    finally:
        await database.close()
    tell("the schema is up to date" + (f"; {made} partitions were created" if made else ""))
    return 0
