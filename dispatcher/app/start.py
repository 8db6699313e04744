"""What prevents a start and can be found without a database, and the role and priority of a process."""

import os
from contextlib import suppress
from enum import StrEnum

from dispatcher.config.loading import load_configuration
from dispatcher.config.settings import Settings
from dispatcher.core.errors import ConfigurationError
from dispatcher.outbound.client import trust_problems
from dispatcher.telemetry.tracing import require_libraries


class Role(StrEnum):
    """What a process does; `all` is the default."""

    ALL = "all"
    DELIVERY = "delivery"
    """It delivers and maintains the history, and serves probes and metrics only."""
    API = "api"
    """It serves the API and the console, and holds no lease."""


def start_problems(settings: Settings) -> list[str]:
    """Return all problems that prevent a start and can be found without a database."""
    problems: list[str] = []
    if settings.database_url is None:
        problems.append(
            "DISPATCHER_DATABASE_URL: required; postgresql://user:password@host:5432/database"
        )
    try:
        load_configuration(settings, needs_keys=True)
    except ConfigurationError as error:
        problems += error.problems
    problems += trust_problems(settings)
    if settings.tracing.otlp_url:
        try:
            require_libraries()
        except ConfigurationError as error:
            problems += error.problems
    return problems


def lower_priority(settings: Settings, role: Role) -> None:
    """Give a process that serves the API alone less CPU than those that deliver.

    Each thread has its own priority and inherits that of its parent, so this is called before any is started. Lowering
    requires no privilege, but a sandbox may refuse the call; the process then runs as it was started.
    """
    if role is not Role.API:
        return
    with suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) < settings.http.nice:
            os.setpriority(os.PRIO_PROCESS, 0, settings.http.nice)
