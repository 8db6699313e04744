"""`dispatcher run`: settings, logs, then the daemon's whole life."""

import os
from pathlib import Path
from typing import NoReturn

import typer
import uvloop

from dispatcher import __version__
from dispatcher.app import Daemon, start_problems
from dispatcher.cli.output import fail, tell
from dispatcher.cli.session import FAILED, USAGE, readable_settings
from dispatcher.config.settings import Settings, load_settings
from dispatcher.core.errors import ConfigurationError, SchemaError
from dispatcher.runtime.notify import Notifier
from dispatcher.telemetry import logs


def run(config: Path | None) -> None:
    """Runs the daemon; ends with 2 where it cannot start, with 1 where it was forced to stop or a part of it died."""
    try:
        settings = load_settings(config, os.environ)
    except ConfigurationError as error:
        _refuse(_with_what_is_missing(error))
    writer = logs.configure(form=settings.log.format, level=settings.log.level, version=__version__)

    def reload() -> Settings:
        return load_settings(config, os.environ)

    async def live() -> None:
        notifier = Notifier.from_environment(os.environ)
        await Daemon(settings, reload=reload, log=writer, notifier=notifier).run()

    try:
        uvloop.run(live())
    except (ConfigurationError, SchemaError) as error:
        logs.shut_down()
        _refuse(error)
    except Exception as error:  # noqa: BLE001 -- the process's own border: whatever died, the supervisor is told by 1
        logs.shut_down()
        fail(f"ended by {type(error).__name__}: {error}")
        raise typer.Exit(FAILED) from None
    logs.shut_down()


def _with_what_is_missing(error: ConfigurationError) -> ConfigurationError:
    """Returns the faults of the settings, and what else would keep the daemon from starting once they are mended."""
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
