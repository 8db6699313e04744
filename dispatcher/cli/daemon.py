"""`dispatcher run`: load the settings, configure logging, and run the daemon."""

import dispatcher.runtime.lean_imports  # noqa: F401 -- before the libraries

# isort: split
import asyncio
import os
import socket
from pathlib import Path
from typing import NamedTuple, NoReturn

import typer
import uvloop

from dispatcher import __version__
from dispatcher.app.daemon import Daemon
from dispatcher.app.start import Role, lower_priority, start_problems
from dispatcher.cli.output import fail, tell
from dispatcher.cli.session import FAILED, USAGE, readable_settings
from dispatcher.config.settings import Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConfigurationError, SchemaError
from dispatcher.runtime.notify import Notifier
from dispatcher.telemetry import logs


class Child(NamedTuple):
    """What a process inherits from its supervisor."""

    probe_path: str | None = None
    lifeline: int | None = None
    """A descriptor that is at its end when the supervisor has ended."""
    listener: int | None = None
    """The descriptor of the bound admin port."""


def supervise(config: Path | None, role: str, processes: int) -> None:
    """Run several processes; exit as `run` does."""
    from dispatcher.supervisor import Supervisor  # noqa: PLC0415 -- one process needs none

    try:
        settings = load_settings(config, os.environ)
    except ConfigurationError as error:
        _refuse(_with_what_is_missing(error))
    logs.configure(form=settings.log.format, level=settings.log.level, version=__version__)

    async def live() -> int:
        problems = start_problems(settings)
        if problems:
            raise ConfigurationError(problems)
        notifier = Notifier.from_environment(os.environ)
        supervisor = Supervisor(
            settings, config=config, role=role, processes=processes, notifier=notifier
        )
        return await supervisor.run()

    try:
        code = uvloop.run(live())
    except ConfigurationError as error:
        logs.shut_down()
        _refuse(error)
    logs.shut_down()
    raise typer.Exit(code)


def run(config: Path | None, role: str = "all", child: Child = Child()) -> None:  # noqa: B008 -- immutable
    """Run the daemon; exit with 2 if it cannot start, and with 1 if it was forced to stop or a component failed."""
    try:
        settings = load_settings(config, os.environ)
    except ConfigurationError as error:
        _refuse(_with_what_is_missing(error))
    lower_priority(settings, Role(role))
    writer = logs.configure(form=settings.log.format, level=settings.log.level, version=__version__)

    def reload() -> Settings:
        return load_settings(config, os.environ)

    async def live() -> None:
        notifier = Notifier.from_environment(os.environ)
        bound = None if child.listener is None else socket.socket(fileno=child.listener)
        daemon = Daemon(
            settings,
            reload=reload,
            log=writer,
            notifier=notifier,
            bound=bound,
            role=Role(role),
            probe_path=child.probe_path,
        )
        if child.lifeline is not None:
            loop, lifeline = asyncio.get_running_loop(), child.lifeline

            def drain() -> None:
                loop.remove_reader(lifeline)
                daemon.stop()

            loop.add_reader(lifeline, drain)
        await daemon.run()

    try:
        uvloop.run(live())
    except (ConfigurationError, SchemaError) as error:
        logs.shut_down()
        _refuse(error)
    except Exception as error:  # noqa: BLE001 -- the process's outermost handler: any failure exits with 1
        logs.shut_down()
        fail(f"ended by {type(error).__name__}: {error}")
        raise typer.Exit(FAILED) from None
    logs.shut_down()


def _with_what_is_missing(error: ConfigurationError) -> ConfigurationError:
    """Return the errors of the settings, and all further problems that would prevent a start."""
    told = {problem.partition(":")[0] for problem in error.problems}
    others = start_problems(readable_settings(os.environ))
    return ConfigurationError(
        [*error.problems, *(one for one in others if one.partition(":")[0] not in told)]
    )


def _refuse(error: ConfigurationError | SchemaError) -> NoReturn:
    problems = error.problems if isinstance(error, ConfigurationError) else [str(error)]
    fail("cannot start:")
    tell("\n".join(f"  {problem}" for problem in problems))
    raise typer.Exit(USAGE)
