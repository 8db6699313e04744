"""Runs the daemon as `dispatcher run` does, settings from the environment: `python -m tests.support.daemon_main`."""

import os
import sys
from pathlib import Path

import uvloop

from dispatcher import __version__
from dispatcher.app import Daemon
from dispatcher.config.settings import Settings, load_settings
from dispatcher.core.errors import ConfigurationError, DispatcherError, SchemaError
from dispatcher.runtime.notify import Notifier
from dispatcher.telemetry import logs


def _settings() -> Settings:
    path = os.environ.get("DISPATCHER_CONFIG")
    return load_settings(Path(path) if path else None, os.environ)


async def _run(settings: Settings, log: logs.Writer) -> None:
    daemon = Daemon(
        settings, reload=_settings, log=log, notifier=Notifier.from_environment(os.environ)
    )
    await daemon.run()


def main() -> int:
    """Returns the exit code: 0 done, 1 failed, 2 configuration."""
    try:
        settings = _settings()
        log = logs.configure(form="json", level=settings.log.level, version=__version__)
        try:
            uvloop.run(_run(settings, log))
        finally:
            log.close()
    except (ConfigurationError, SchemaError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except DispatcherError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
