"""Shows how deliveries come along while `dispatcher dev` runs: a live table on a terminal, else a line per change."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoint_reader import EndpointReader
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.cli.output import say
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.printable import escape
from dispatcher.store.endpoint_counts import Progress, read_progress

SECONDS_BETWEEN: Final = 0.5
ENDPOINTS_MAX: Final = 20
_NOTHING: Final = Progress("", 0, 0, 0, 0, 0, 0)
_COLUMNS: Final = ("delivered", "waiting", "retrying", "failed", "cancelled", "attempts")

Figures = dict[str, Progress]
"""By the endpoint's name."""


async def show_progress(deployment: Deployment, actor: Actor, since: datetime) -> None:
    """Show the figures of this run until it is cancelled."""
    if sys.stdout.isatty():
        with Live(console=Console(), refresh_per_second=4, transient=False) as live:
            await _follow(deployment, actor, since, lambda figures: live.update(_table(figures)))
    else:
        await _follow(deployment, actor, since, _say_lines())


async def _follow(
    deployment: Deployment, actor: Actor, since: datetime, show: Callable[[Figures], None]
) -> None:
    while True:
        # While the database is away the figures stay as they are.
        with contextlib.suppress(StoreUnavailableError):
            show(await _figures(deployment, actor, since))
        await asyncio.sleep(SECONDS_BETWEEN)


async def _figures(deployment: Deployment, actor: Actor, since: datetime) -> Figures:
    page = await EndpointReader(deployment).page(actor, EndpointsQuery(limit=ENDPOINTS_MAX))
    names = {endpoint.id: endpoint.name for endpoint in reversed(page.items)}
    found = {
        one.endpoint_id: one for one in await read_progress(deployment.database, list(names), since)
    }
    return {name: found.get(endpoint_id, _NOTHING) for endpoint_id, name in names.items()}


def _table(figures: Figures) -> Table:
    table = Table(Column("endpoint", no_wrap=True), *_COLUMNS, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name, one in figures.items():
        table.add_row(Text(escape(name)), *(str(getattr(one, column)) for column in _COLUMNS))
    return table


def _say_lines() -> Callable[[Figures], None]:
    """Return what prints the endpoints whose figures have changed."""
    shown: Figures = {}

    def show(figures: Figures) -> None:
        for name, one in figures.items():
            before = shown.get(name, _NOTHING)
            if one._replace(waiting=before.waiting) != before._replace(endpoint_id=one.endpoint_id):
                say(
                    f"{name}: "
                    + ", ".join(f"{column} {getattr(one, column)}" for column in _COLUMNS)
                )
            shown[name] = one
        sys.stdout.flush()

    return show
