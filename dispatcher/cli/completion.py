"""Completion of names in a shell: endpoints, notifications and tokens of the database, and words of the files.

Shells wait for it at each press of Tab, so that it ends after `SECONDS_MAX`, and nothing is completed if the
database cannot be reached.
"""

# ruff: noqa: PLC0415 -- only a completion needs them, not --help

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from dispatcher.config.settings import Settings
    from dispatcher.store.names import NamedKind

SECONDS_MAX: Final = 1.0
Completer = Callable[[typer.Context, str], list[str]]


def complete_names(kind: "NamedKind") -> Completer:
    """Return the completion of the names of a kind of objects."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        tenant = context.params.get("tenant")
        return [one for one in _names_in_time(context, kind, tenant) if one.startswith(incomplete)]

    return complete


def complete_event_types(context: typer.Context, incomplete: str) -> list[str]:
    """Complete an event type of the catalogue."""
    from dispatcher.config.catalogue import load_catalogue

    return _words_of_files(
        context, incomplete, lambda one: load_catalogue(one.directories_for("catalogue")).types
    )


def complete_profiles(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a profile."""
    from dispatcher.config.profiles import load_profiles

    return _words_of_files(
        context, incomplete, lambda one: load_profiles(one.directories_for("profiles")).profiles
    )


def complete_words(*words: str) -> Completer:
    """Return the completion of one of some words."""

    def complete(_: typer.Context, incomplete: str) -> list[str]:
        return [one for one in words if one.startswith(incomplete)]

    return complete


def _words_of_files(
    context: typer.Context, incomplete: str, read: Callable[["Settings"], Iterable[str]]
) -> list[str]:
    import os

    from dispatcher.config.settings_reader import load_settings
    from dispatcher.core.errors import ConfigurationError

    try:
        words = read(load_settings(_config_of(context), os.environ))
    except ConfigurationError:
        return []
    return sorted(one for one in words if one.startswith(incomplete))


def _config_of(context: typer.Context) -> "Path | None":
    """Return the settings file of the option --config."""
    path: Path | None = context.find_root().params.get("config")
    return path


def _names_in_time(context: typer.Context, kind: "NamedKind", tenant: str | None) -> list[str]:
    import asyncio

    import asyncpg
    import uvloop

    from dispatcher.admin.operations.names import Names
    from dispatcher.cli.session import opened, settings_of
    from dispatcher.core.errors import DispatcherError

    async def run() -> list[str]:
        async with asyncio.timeout(SECONDS_MAX), opened(settings) as session:
            return await Names(session.deployment).list(session.actor, kind, tenant)

    try:
        settings = settings_of(_config_of(context))
        return uvloop.run(run())
    except (DispatcherError, asyncpg.PostgresError, OSError, TimeoutError):
        return []
