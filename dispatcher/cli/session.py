"""Shared parts of commands: settings, the deployment, and exit codes of errors.

An invalid setting or argument exits with 2; any other error (an unknown endpoint, an unreachable
database) exits with 1.
"""

import dispatcher.runtime.lean_imports  # noqa: F401 -- before the libraries

# isort: split
import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import typer
import uvloop

from dispatcher import __version__
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoint_reader import EndpointReader
from dispatcher.admin.operations.names import Names
from dispatcher.admin.resources.problem import count_text, field_problems
from dispatcher.admin.resources.serialization import write_json
from dispatcher.cli.output import Output, fail, tell, warn
from dispatcher.cli.resource_options import EndpointName, Fields
from dispatcher.config.database_url import UrlSource
from dispatcher.config.loading import load_configuration
from dispatcher.config.settings import Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import (
    ConfigurationError,
    DispatcherError,
    InvalidRequestError,
    SchemaError,
)
from dispatcher.core.printable import escape_json
from dispatcher.core.similar import did_you_mean, similar_words
from dispatcher.dev.home import running_environment
from dispatcher.outbound.client import HttpClient, address_policy
from dispatcher.outbound.own_addresses import protected_addresses
from dispatcher.runtime.clock import SystemClock
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.encryption_keys import wrong_keys
from dispatcher.store.names import NamedKind
from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema
from dispatcher.telemetry import logs

FAILED, USAGE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One command's work on the database."""

    deployment: Deployment
    actor: Actor

    async def id_of(self, kind: NamedKind, name_or_id: str, tenant: str | None = None) -> str:
        """Return the id of an object that was named by its name or its id.

        Raises:
            NotFoundError: there is none; the message names similar names. ConflictError: several tenants have one.
        """
        names = Names(self.deployment)
        return await names.id_of(self.actor, kind, name_or_id, tenant)

    async def resolved(self, fields: Fields, tenant: str | None = None) -> dict[str, Any]:
        """Return the fields of a command with the ids of the endpoints that it names.

        Raises:
            As `id_of`.
        """
        tenant = tenant or fields.get("tenant")
        resolved = dict(fields)
        for name, value in fields.items():
            if isinstance(value, EndpointName):
                resolved[name] = await self.id_of("endpoint", value, tenant)
            elif isinstance(value, list) and any(isinstance(one, EndpointName) for one in value):
                resolved[name] = [await self.id_of("endpoint", one, tenant) for one in value]
        return resolved

    def similar_types(self, event_type: str) -> list[str]:
        """Return types of the catalogue that are similar to one that it does not have."""
        known = self.deployment.catalogue.types
        return [] if event_type in known else similar_words(event_type, known)

    def type_hint(self, event_type: str | None) -> str:
        """Return what a list that a mistyped event type has emptied adds to its message, after a semicolon."""
        similar = self.similar_types(event_type) if event_type else []
        return f"; the catalogue has no {event_type}. {did_you_mean(similar)}" if similar else ""

    async def endpoint_names(self, endpoint_ids: Iterable[str | None]) -> dict[str, str]:
        """Return the names of endpoints by id, deleted ones included."""
        rows = await EndpointReader(self.deployment).names(self.actor, filter(None, endpoint_ids))
        return {row.id: row.name for row in rows.values()}


def settings_of(config: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the effective settings, completed by a running `dispatcher dev`.

    Raises:
        ConfigurationError: settings are invalid; has all problems.
    """
    return load_settings(config, effective_environment(os.environ), flags=flags)


def effective_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, completed by a running `dispatcher dev` if no database URL is set."""
    if environ.get("DISPATCHER_DATABASE_URL") or environ.get("DISPATCHER_DATABASE_URL_FILE"):
        return dict(environ)
    found = running_environment(environ)
    given = {name.removesuffix("_FILE") for name in environ if name.endswith("_FILE")}
    return {**{name: value for name, value in found.items() if name not in given}, **environ}


def actor() -> Actor:
    """Return the operating system's user as the actor of the audit log."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Actor(name=f"cli:{name}")


def database_source(settings: Settings) -> UrlSource:
    """Return the source of the database URL.

    Raises:
        ConfigurationError: there is none.
    """
    source = settings.database_source()
    if source is None:
        raise ConfigurationError(
            [
                (
                    "DISPATCHER_DATABASE_URL: required; postgresql://user:password@host:5432/database"
                    " (or start `dispatcher dev`, whose database is then used)"
                )
            ]
        )
    return source


def deployment_of(settings: Settings, database: Database) -> Deployment:
    """Return the deployment for operations, from the settings and their files.

    Raises:
        ConfigurationError: profiles, catalogue or egress settings are invalid; has all problems.
    """
    return Deployment.of(
        settings,
        database,
        load_configuration(settings),
        policy=address_policy(settings, protected_addresses(settings)),
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    """Yield a session on a database with a compatible schema, whose keys have the values of these settings.

    Raises:
        ConfigurationError: the settings are invalid, or a key has another value in this database.
        SchemaError: the schema does not fit. StoreUnavailableError: the database cannot be reached.
    """
    database = Database(
        database_source(settings),
        connections_max=2,
        statement_cache_size=0 if settings.database.pooler else 100,
    )
    deployment = deployment_of(settings, database)
    await database.open()
    try:
        await Schema(database).require()
        problems = await wrong_keys(database, deployment.keyring) if deployment.keyring else []
        if problems:
            raise ConfigurationError(problems)
        yield Session(deployment=deployment, actor=actor())
    finally:
        await database.close()


@asynccontextmanager
async def open_http_client(settings: Settings) -> AsyncIterator[HttpClient]:
    """Yield the HTTP client, with the same egress guard as the daemon."""
    async with TaskSet("http_client") as tasks:
        http_client = HttpClient(
            settings, tasks, SystemClock(), protected=protected_addresses(settings)
        )
        try:
            yield http_client
        finally:
            await http_client.close()


def work(context: typer.Context, step: Callable[[Session], Awaitable[None]]) -> None:
    """Run one step on the database, and exit the command with its exit code."""

    async def run() -> None:
        settings = settings_of(context.obj)
        for warning in settings.warnings:
            warn(warning)
        async with opened(settings) as session:
            await step(session)

    given = context.params
    as_json = bool(given.get("as_json")) or given.get("output") == Output.JSON
    guarded(lambda: uvloop.run(run()), as_json=as_json)


def guarded(run: Callable[[], None], *, as_json: bool = False) -> None:
    """Run a command; every error becomes a text on stderr, or JSON there, and an exit code."""
    logs.configure(form="console", level="warning", version=__version__)
    try:
        code = _code_of(run, as_json=as_json)
    finally:
        logs.shut_down()
    if code:
        raise typer.Exit(code)


def _code_of(run: Callable[[], None], *, as_json: bool) -> int:
    try:
        run()
    except ConfigurationError as error:
        _fail_list("the configuration is invalid", error.problems)
        return USAGE
    except InvalidRequestError as error:
        if as_json:
            _fail_json(error)
        else:
            _fail_list(
                "the request is invalid", [f"{one.field}: {one.text}" for one in error.problems]
            )
        return USAGE
    except SchemaError as error:
        fail(str(error))
        return USAGE
    except DispatcherError as error:
        if as_json:
            _fail_json(error)
        else:
            fail(str(error))
    except asyncpg.PostgresError as error:
        fail(
            f"Postgres rejected the statement: {error}\nCheck DISPATCHER_DATABASE_URL, or run `dispatcher check`."
        )
    except asyncio.CancelledError:
        fail("interrupted")
    else:
        return 0
    return FAILED


def _fail_list(head: str, problems: Sequence[str]) -> None:
    """Print one problem on the line of the error, or several below it."""
    if len(problems) == 1:
        fail(problems[0])
    else:
        fail(f"{head}:")
        tell("\n".join(f"  {one}" for one in problems))


def _fail_json(error: DispatcherError) -> None:
    """Print an error on standard error, with the members that the API's problems have."""
    body: dict[str, Any] = {"code": error.code, "detail": str(error)}
    if isinstance(error, InvalidRequestError):
        body["detail"] = count_text(len(error.problems))
        body["errors"] = field_problems(error.problems)
    sys.stderr.write(escape_json(write_json(body).decode(), ascii_only=True) + "\n")


def readable_settings(environ: Mapping[str, str]) -> Settings:
    """Return only the settings of the special variables that are well-formed.

    Callers use them to report further problems when the settings as a whole are invalid.
    """
    settings = Settings()
    for name in (
        "DISPATCHER_DATABASE_URL",
        "DISPATCHER_LISTEN_DATABASE_URL",
        "DISPATCHER_SECRET_KEYS",
    ):
        given = {key: environ[key] for key in (name, f"{name}_FILE") if environ.get(key)}
        try:
            found = load_settings(None, given, working_directory=Path("/nonexistent"))
        except ConfigurationError:
            continue
        key = name.removeprefix("DISPATCHER_").lower()
        settings = settings.model_copy(update={key: getattr(found, key)})
    return settings
